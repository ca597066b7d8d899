"use strict";
document.documentElement.classList.add("js");

// A slider fades from each picture to the next one: image, label, prediction, error.
for (const article of document.querySelectorAll(".shown")) {
  const slider = article.querySelector(".slider input");
  if (!slider) continue;
  const said = article.querySelector(".slider output");
  const panels = [...article.querySelectorAll(".panel")];
  const names = panels.map((panel) => panel.querySelector("figcaption").textContent);
  const show = () => {
    const place = Number(slider.value);
    panels.forEach((panel, i) => panel.style.setProperty("--o", Math.min(1, Math.max(0, place - i + 1))));
    const low = Math.floor(place);
    const text = place === low ? names[low] : `${names[low]}, ${names[low + 1]}`;
    said.textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  slider.addEventListener("input", show);
  show();
}
const gallery = document.querySelector(".gallery");
const abreast = document.getElementById("abreast");
if (gallery && abreast) {
  const arrange = () => gallery.classList.toggle("sliding", !abreast.checked);
  abreast.addEventListener("change", arrange);
  arrange();
  const every = document.getElementById("every");
  every.addEventListener("input", () => {
    for (const slider of gallery.querySelectorAll(".slider input")) {
      slider.value = every.value;
      slider.dispatchEvent(new Event("input"));
    }
  });
}

// Under the pointer, or by the arrow keys, a chart tells the values at one place.
for (const svg of document.querySelectorAll(".chart > svg")) {
  const [x0, x1, y0, y1] = svg.dataset.ranges.split(" ").map(Number);
  const lines = [...svg.querySelectorAll(".line")].map((line) => ({
    name: line.dataset.name,
    points: [...line.querySelectorAll("polyline")].flatMap((part) => [...part.points].map((p) => [p.x, p.y])),
  })).filter((line) => line.points.length);
  if (!lines.length) continue;
  const said = svg.parentElement.querySelector(".readout");
  const cursor = document.createElementNS(svg.namespaceURI, "line");
  for (const [key, value] of [["class", "cursor"], ["y1", 10], ["y2", 244], ["visibility", "hidden"]]) cursor.setAttribute(key, value);
  svg.append(cursor);
  const near = (points, x) => points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));
  let at = 628;
  const tell = (place) => {
    at = near(lines[0].points, Math.min(628, Math.max(52, place)))[0];
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    cursor.setAttribute("visibility", "visible");
    const values = lines.map(({ name, points }) => `${name} ${Number((y0 + ((244 - near(points, at)[1]) / 234) * (y1 - y0)).toPrecision(3))}`);
    const x = x0 + ((at - 52) / 576) * (x1 - x0);
    said.textContent = `${x1 - x0 > 20 ? Math.round(x) : Number(x.toPrecision(3))}: ${values.join(", ")}`;
  };
  const forget = () => { cursor.setAttribute("visibility", "hidden"); said.textContent = ""; };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    tell(((event.clientX - box.left) / box.width) * 640);
  });
  svg.addEventListener("pointerleave", forget);
  svg.addEventListener("blur", forget);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const xs = [...new Set(lines[0].points.map((p) => p[0]))].sort((a, b) => a - b);
    const now = xs.indexOf(near(lines[0].points, at)[0]);
    tell(xs[Math.min(xs.length - 1, Math.max(0, now + step))]);
  });
}
