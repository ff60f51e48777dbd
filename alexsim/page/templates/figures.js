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
    // A legend takes more rows where a figure is narrow, and words would lie on each other.
    const names = data.filter((of) => of.showlegend !== false).map((of) => of.name?.length ?? 0);
    const entry = 6 * Math.max(0, ...names) + 48;
    const rows = (pixels) => Math.ceil(names.length / (Math.floor(pixels / entry) || 1));
    layout.height += 19 * (rows(width - 60) - rows(1000));
    for (const trace of width < 480 ? data : []) {
      if (trace.mode === "markers+text") trace.mode = "markers";
      if (trace.mode === "text") trace.visible = false;
    }
    layout.width = width;
    // Drawn anew, a figure stays zoomed and filtered.
    layout.uirevision = "kept";
    if (touch) layout.dragmode = false;
    Plotly.react(place, data, layout, config);
    // Those were guesses. The legend stands above the plot, never in it,
    const legend = place.querySelector(".legend .bg")?.getBBox().height ?? 0;
    const area = place.querySelector(".nsewdrag").getBoundingClientRect();
    const above = area.top - place.getBoundingClientRect().top;
    if (legend > above - 2) {
      layout.height += legend + 8 - above;
      Plotly.relayout(place, { "margin.t": legend + 8, height: layout.height });
    }
    // and the plot keeps its height.
    const plot = place.querySelector(".nsewdrag").getBBox().height;
    const missing = layout.meta.plot_height - plot;
    if (Math.abs(missing) > 20) Plotly.relayout(place, { height: layout.height + missing });
    place.style.minHeight = "";
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
  // A phone's window changes its height while it scrolls.
  let wide = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== wide) again();
    wide = innerWidth;
  });
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
