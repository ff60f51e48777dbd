(() => {
  const { figures, colours, config } = JSON.parse(document.getElementById("drawn").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // A finger's drag scrolls the page; the buttons zoom.
  const touch = matchMedia("(pointer: coarse)").matches;
  const recoloured = (value) => {
    if (typeof value === "string") return colours[value] ?? value;
    if (Array.isArray(value)) return value.map(recoloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, of]) => [key, recoloured(of)]));
  };
  const draw = (place, printed) => {
    const light = figures[place.id.slice("plot-".length)];
    const { data, layout } = dark.matches && !printed ? recoloured(light) : structuredClone(light);
    const half = place.closest("figure").classList.contains("half");
    const width = printed ? (half ? 335 : 690) : place.clientWidth;
    // A legend of a narrow figure takes more rows.
    if (width < 600) layout.height += 8 * data.filter((trace) => trace.showlegend !== false).length;
    if (printed) layout.width = width;
    if (touch) layout.dragmode = false;
    Plotly.react(place, data, layout, config);
    place.dataset.drawn = "";
  };
  const places = [...document.querySelectorAll(".plot")];
  const near = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      near.unobserve(target);
      draw(target, false);
    }
  }, { rootMargin: "800px" });
  places.forEach((place) => near.observe(place));
  const again = () => places.filter((place) => "drawn" in place.dataset).forEach((p) => draw(p));
  dark.addEventListener("change", again);
  const folded = [...document.querySelectorAll("section > details:not([open])")];
  addEventListener("beforeprint", () => {
    folded.forEach((each) => { each.open = true; });
    places.forEach((place) => draw(place, true));
  });
  addEventListener("afterprint", () => {
    folded.forEach((each) => { each.open = false; });
    again();
  });
})();
