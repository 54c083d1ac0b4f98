// Requests to this server, with the API key when one was given.

const KEY = 'paystream.api_key';
const DEADLINE_MS = 40_000;

let apiKey = null;
try {
  apiKey = sessionStorage.getItem(KEY);
} catch { /* storage denied: the key lasts for this page view */ }

export function rememberKey(key) {
  apiKey = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch { /* see above */ }
}

/** The headers that say who is asking. */
export const authorisation = () => (apiKey === null ? {} : { authorization: `Bearer ${apiKey}` });

/** An answer that is not 2xx, or none at all. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** A JSON answer; an `ApiError` with the problem's own words otherwise. */
export async function request(path, { body } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...authorisation() },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
  } catch (error) {
    const late = error.name === 'TimeoutError';
    throw new ApiError(late ? `No answer within ${DEADLINE_MS / 1000} s. Try a smaller question.` : 'The server cannot be reached. Is paystream running?');
  }
  const parsed = await response.json().catch(() => null);
  if (response.ok && parsed !== null) return parsed;
  throw new ApiError(problemText(parsed, response.status), response.status);
}

/** RFC 9457 problems carry a detail; anything else gets its status. */
function problemText(problem, status) {
  const text = problem?.detail ?? problem?.title;
  const fields = Array.isArray(problem?.errors) ? problem.errors.map((e) => e?.message).filter(Boolean) : [];
  return [text ?? `The server answered ${status}.`, ...fields].join('\n');
}
