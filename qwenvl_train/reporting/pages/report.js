// Copies the command beside a button.
document.addEventListener("click", async event => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const code = button.closest("tr").querySelector("code");
  getSelection().selectAllChildren(code);
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
  } catch {
    button.textContent = "selected"; // the page may not use the clipboard
  }
  setTimeout(() => button.textContent = "copy", 1500);
});
