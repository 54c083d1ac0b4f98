//! What runs inside Redis. Each script is one step that nothing comes between, and Redis's clock is the only
//! one that counts in it.
//!
//! What is kept under the key of a transaction is a text of fields between `|`:
//! - `C|owner|until|fingerprint`: claimed by a replica until a time of Redis's clock. It outlives that time,
//!   so that whoever comes next knows that something may have been written.
//! - `E|merchant|livemode|accepted_at_us|partition|offset|fingerprint`: accepted, and where it stands in the log.

use redis::Cmd;

/// A script, known to Redis by its SHA-1.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        let hash = redis::Script::new(code).get_hash().to_owned();
        Self { code, hash }
    }

    /// The command that runs it.
    pub(super) fn command(&self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        command
    }

    fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.code);
        command
    }
}

/// All scripts.
pub(super) struct Scripts {
    pub(super) claim: Script,
    pub(super) amend: Script,
    pub(super) accept: Script,
    pub(super) take: Script,
    pub(super) probe: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            claim: Script::new(CLAIM),
            amend: Script::new(AMEND),
            accept: Script::new(ACCEPT),
            take: Script::new(TAKE),
            probe: Script::new(PROBE),
        }
    }

    /// Makes them known to a connection's Redis.
    pub(super) fn load(&self) -> redis::Pipeline {
        let mut pipeline = redis::pipe();
        for script in [&self.claim, &self.amend, &self.accept, &self.take, &self.probe] {
            pipeline.add_command(script.load());
        }
        pipeline
    }
}

/// KEYS: entry, view. ARGV: owner, fingerprint, lease in ms, time to live in ms.
/// Returns `first`; `expired` (ours, after one that gave no sign of life); `busy` and the claim;
/// `accepted`, the entry, and the view if there is one.
const CLAIM: &str = r"
local known = redis.call('GET', KEYS[1])
if known and string.sub(known, 1, 1) == 'E' then
  return {'accepted', known, redis.call('GET', KEYS[2])}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local answer = 'first'
if known then
  local till = tonumber(string.match(known, '^C|[^|]*|(%d+)|')) or 0
  if till > now then return {'busy', known} end
  answer = 'expired'
end
local till = string.format('%.0f', now + tonumber(ARGV[3]))
redis.call('SET', KEYS[1], 'C|' .. ARGV[1] .. '|' .. till .. '|' .. ARGV[2], 'PX', ARGV[4])
return {answer}
";

/// KEYS: entry. ARGV: owner, lease in ms: below 0 = nothing was written, forget the claim; 0 = it is not known
/// whether something was; above = still at work. Does nothing to what is not the owner's.
const AMEND: &str = r"
local known = redis.call('GET', KEYS[1])
if not known then return 0 end
local fingerprint = string.match(known, '^C|' .. ARGV[1] .. '|%d+|(.*)$')
if not fingerprint then return 0 end
local lease = tonumber(ARGV[2])
if lease < 0 then return redis.call('DEL', KEYS[1]) end
local t = redis.call('TIME')
local till = 0
if lease > 0 then till = t[1] * 1000 + math.floor(t[2] / 1000) + lease end
redis.call('SET', KEYS[1], 'C|' .. ARGV[1] .. '|' .. string.format('%.0f', till) .. '|' .. fingerprint, 'KEEPTTL')
return 1
";

/// KEYS: entry. ARGV: the entry, time to live in ms. The first entry stays.
const ACCEPT: &str = r"
local known = redis.call('GET', KEYS[1])
if known and string.sub(known, 1, 1) == 'E' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// KEYS: token buckets, in the order they are asked. ARGV: for each its rate per second, its size, the cost.
/// Returns for each 1 or 0 and the tokens left, up to the first that has too few.
const TAKE: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local answer = {}
for i, key in ipairs(KEYS) do
  local rate, burst, cost = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  local tokens, at = burst, now
  local known = redis.call('GET', key)
  if known then
    local a, b = string.match(known, '^([^|]+)|(.+)$')
    tokens, at = tonumber(a) or burst, tonumber(b) or now
  end
  if at > now then at = now end
  tokens = math.min(burst, tokens + (now - at) * rate / 1000000)
  local enough = tokens >= cost
  if enough then tokens = tokens - cost end
  redis.call('SET', key, string.format('%.6f|%.0f', tokens, now), 'PX', math.ceil(burst / rate * 1000) + 1000)
  answer[#answer+1] = enough and 1 or 0
  answer[#answer+1] = string.format('%.6f', tokens)
  if not enough then break end
end
return answer
";

/// KEYS: a key of its own. Whether Redis takes writes.
const PROBE: &str = r"
redis.call('SET', KEYS[1], '1', 'PX', 10000)
return 1
";
