// Appended to a report's page by report_test.sh: points at every cell of every heat map, and writes the text that the page shows
// as CSV to an element, with the time of the slowest step of each kind.
{
  const lines = [], slowest = {draw: 0, hover: 0, slider: 0, scale: 0};
  const timed = (kind, step) => {
    const begin = performance.now();
    step();
    document.body.offsetHeight;  // includes the layout
    slowest[kind] = Math.max(slowest[kind], performance.now() - begin);
  };
  for (const f of figures) {
    timed("draw", () => drawLayer(f));
    const image = f.element.querySelector(".heat > svg");
    const bounds = image.getBoundingClientRect(), zoom = bounds.width / f.g.width;
    for (let head = 0; head < K; ++head) {
      for (let k = 0; k < P; ++k) {
        const at = {bubbles: true, clientX: bounds.left + (f.g.left + (k + 0.5) * f.g.cell) * zoom,
          clientY: bounds.top + (f.g.top + (head + 0.5) * f.g.rowHeight) * zoom};
        timed("hover", () => image.dispatchEvent(new PointerEvent("pointermove", at)));
        const says = {};
        for (const row of tip.querySelectorAll("span")) says[row.firstChild.textContent] = row.lastChild.textContent;
        const place = /Layer (\d+), KV head (\d+), pair (\d+)/.exec(tip.textContent);
        const by = says["kept by"].split(", ");
        lines.push([place[1], place[2], place[3], parseFloat(says["θ"]), says["wavelength"].replace(" tokens", ""), says["score"],
          parseInt(says["rank"]), ...strategies.map(s => +by.includes(s.name))].join());
      }
    }
  }
  for (let half = 1; half <= P; ++half) timed("slider", () => { r = half; redraw(); });
  for (const scale of ["layer", "model"]) {
    find("scale").value = scale;
    timed("scale", () => find("scale").dispatchEvent(new Event("change")));
  }
  const out = document.createElement("pre");
  out.id = "hover";
  out.textContent = "\n" + lines.join("\n") + "\n";
  out.dataset.slowest = Object.entries(slowest).map(([kind, ms]) => kind + " " + ms.toFixed(1) + " ms").join(", ");
  document.body.append(out);
}
