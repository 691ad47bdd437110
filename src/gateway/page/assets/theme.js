// Sets the chosen colours before anything is painted; without a choice they are the system's.
(() => {
  try {
    const chosen = localStorage.getItem("pyoco.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden; then nothing was chosen.
  }
})();
