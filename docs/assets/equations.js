// KaTeX on what pymdownx.arithmatex marks, \( … \) within a line and \[ … \] on lines of its own.
document.querySelectorAll(".arithmatex").forEach((element) => {
  const text = element.textContent.trim();
  katex.render(text.slice(2, -2), element, { displayMode: text.startsWith("\\[") });
});
