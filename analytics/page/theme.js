// Sets the theme before the first paint: the remembered one, else the system's.
// A classic script, so that it runs before the body is drawn; the button is wired up in app.js.
(() => {
  const KEY = 'paystream.theme';
  const system = window.matchMedia('(prefers-color-scheme: dark)');

  // Storage may be denied; the theme then lasts for this page view.
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch { /* see above */ }

  const listeners = [];
  const current = () => (chosen === 'dark' || chosen === 'light' ? chosen : system.matches ? 'dark' : 'light');
  const apply = () => {
    document.documentElement.dataset.theme = current();
    for (const listener of listeners) listener(current());
  };

  window.paystreamTheme = {
    current,
    onChange: (listener) => listeners.push(listener),
    toggle() {
      chosen = current() === 'dark' ? 'light' : 'dark';
      try {
        localStorage.setItem(KEY, chosen);
      } catch { /* see above */ }
      apply();
    },
  };
  system.addEventListener('change', apply);
  apply();
})();
