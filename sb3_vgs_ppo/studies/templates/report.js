// Draws the curves of a study with plotly.js. All numbers come from the page's data; nothing is computed here.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("screen and (prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  const state = { hidden: new Set(), bands: data.bands, seeds: false, highlighted: null };
  const plots = [...document.querySelectorAll(".plot")].map((div) => {
    const environment = data.environments[div.dataset.environment];
    return { div, environment, metric: environment.metrics[div.dataset.metric], drawn: false };
  });

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colorOf = (v) => (dark.matches ? data.variants[v].dark : data.variants[v].light);

  const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

  function washed(color, opacity) {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${opacity})`;
  }

  function opacityOf(v) {
    return state.highlighted === null || state.highlighted === v ? 1 : 0.15;
  }

  // A band is one closed outline: the upper ends forth and the lower ends back
  function band(series, v) {
    const x = data.grids[series.x];
    const known = x.map((_, i) => i).filter((i) => series.low[i] !== null && series.high[i] !== null);
    const back = [...known].reverse();
    return {
      x: [...known, ...back].map((i) => x[i]),
      y: [...known.map((i) => series.high[i]), ...back.map((i) => series.low[i])],
      fill: "toself", fillcolor: washed(colorOf(v), 0.15), line: { width: 0 }, mode: "lines", hoverinfo: "skip",
      visible: state.bands && !state.hidden.has(v), opacity: opacityOf(v),
    };
  }

  function line(series, v) {
    const variant = data.variants[v];
    const interval = (low, i) => (low === null ? "" : ` (${short(low)} to ${short(series.high[i])})`);
    return {
      x: data.grids[series.x], y: series.y, name: variant.name, mode: "lines",
      line: { color: colorOf(v), width: 2, dash: variant.dash }, opacity: opacityOf(v),
      customdata: series.low ? series.low.map(interval) : series.y.map(() => ""),
      hovertemplate: `${variant.name}: %{y:.4~g}%{customdata}<extra></extra>`,
      visible: !state.hidden.has(v),
    };
  }

  function singleSeed(series) {
    return {
      x: data.grids[series.x], y: series.y, mode: "lines", line: { color: colorOf(series.v), width: 0.8 },
      opacity: 0.55 * opacityOf(series.v), hoverinfo: "skip", visible: state.seeds && !state.hidden.has(series.v),
    };
  }

  // A tick where a change was found, a cross where an alarm found none; a row per variant that tests for changes
  function alarmMarks(alarms, row) {
    const variant = data.variants[alarms.v];
    const text = alarms.x.map((step, i) => {
      const delay = alarms.delay[i] === null ? "no change found" : `${alarms.delay[i].toLocaleString("en")} after the change`;
      return `${variant.name}, seed ${alarms.seed[i]}: alarm at ${step.toLocaleString("en")}, ${delay}; ${alarms.responses[i] || "only reported"}`;
    });
    return {
      x: alarms.x, y: alarms.x.map(() => row), yaxis: "y2", mode: "markers", name: variant.name,
      marker: {
        symbol: alarms.delay.map((delay) => (delay === null ? "x-thin" : "line-ns")), size: 7,
        line: { width: 1.5, color: colorOf(alarms.v) },
      },
      text, hovertemplate: "%{text}<extra></extra>", visible: !state.hidden.has(alarms.v), opacity: opacityOf(alarms.v),
    };
  }

  const alarmsOf = ({ environment, metric }) => (metric.name === "return" ? environment.alarms : []);

  function traces(plot) {
    const { environment, metric } = plot;
    const bands = metric.series.filter((series) => series.low).map((series) => band(series, series.v));
    const seeds = metric.name === "return" ? environment.seeds.map(singleSeed) : [];
    return [...bands, ...seeds, ...metric.series.map((series) => line(series, series.v)), ...alarmsOf(plot).map(alarmMarks)];
  }

  function shapes({ environment, metric }) {
    const phases = environment.phases.map((step) => ({
      type: "line", x0: step, x1: step, yref: "paper", y0: 0, y1: 1, layer: "below",
      line: { color: css("--mark"), width: 1, dash: "dot" },
    }));
    if (metric.name !== "return" || environment.threshold === null) return phases;
    return [...phases, {
      type: "line", xref: "paper", x0: 0, x1: 1, y0: environment.threshold, y1: environment.threshold, layer: "below",
      line: { color: css("--mark"), width: 1.5, dash: "dash" },
      label: { text: "threshold", textposition: "start", yanchor: "top", font: { size: 11, color: css("--soft") } },
    }];
  }

  function layout(plot) {
    const axis = {
      gridcolor: css("--grid"), linecolor: css("--line"), zeroline: false, automargin: true, tickfont: { size: 11 },
    };
    const shown = data.variants.length - state.hidden.size;
    const rows = alarmsOf(plot).length;
    const strip = Math.min(0.035 * rows, 0.3);  // share of the height, below the curves
    return {
      margin: { l: 44, r: 8, t: 8, b: 34 }, showlegend: false, shapes: shapes(plot),
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, color: css("--soft") },
      hovermode: shown <= 8 ? "x unified" : "closest",
      hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--line"), font: { color: css("--ink"), size: 12 } },
      dragmode: coarse ? false : "zoom",  // on a touch screen a drag scrolls the page
      xaxis: { ...axis, anchor: rows ? "y2" : "y", range: plot.environment.range || [0, plot.environment.steps], tickformat: "~s", nticks: 8 },
      yaxis: {
        ...axis, fixedrange: true, type: plot.metric.log ? "log" : "linear", exponentformat: "power", nticks: 7,
        ...(plot.metric.log && { dtick: 1 }), domain: [strip && strip + 0.02, 1],
      },
      ...(rows && {
        yaxis2: { domain: [0, strip], range: [rows - 0.5, -0.5], fixedrange: true, visible: false },
      }),
    };
  }

  const config = { responsive: true, displayModeBar: false, doubleClick: "reset" };

  function draw(plot) {
    window.Plotly.react(plot.div, traces(plot), layout(plot), config);
    if (plot.drawn) return;
    plot.drawn = true;
    plot.div.on("plotly_relayout", (change) => {
      const from = change["xaxis.range[0]"];
      if (from !== undefined) plot.environment.range = [from, change["xaxis.range[1]"]];
      else if (change["xaxis.autorange"] || change["xaxis.range"]) plot.environment.range = null;
      else return;
      redraw();
    });
  }

  // Toggling fast asks for more drawings than the screen can show
  let waiting = null;
  function redraw() {
    waiting ??= requestAnimationFrame(() => {
      waiting = null;
      plots.filter((plot) => plot.drawn).forEach(draw);
    });
  }

  function update() {
    for (const button of document.querySelectorAll(".legend button")) {
      button.setAttribute("aria-pressed", String(!state.hidden.has(Number(button.dataset.variant))));
    }
    for (const button of document.querySelectorAll("[data-switch]")) {
      button.setAttribute("aria-pressed", String(state[button.dataset.switch]));
    }
    redraw();
  }

  function listen(selector, events) {
    for (const element of document.querySelectorAll(selector)) {
      for (const [name, react] of Object.entries(events)) {
        element.addEventListener(name, () => { react(element); update(); });
      }
    }
  }

  const variantOf = (button) => Number(button.dataset.variant);
  listen(".legend button", {
    click: (button) => state.hidden.delete(variantOf(button)) || state.hidden.add(variantOf(button)),
    dblclick: (button) => {
      state.hidden = new Set(data.variants.keys());
      state.hidden.delete(variantOf(button));
    },
    mouseenter: (button) => { state.highlighted = variantOf(button); },
    mouseleave: () => { state.highlighted = null; },
  });
  listen("[data-switch]", { click: (button) => { state[button.dataset.switch] = !state[button.dataset.switch]; } });
  listen("[data-show-all]", { click: () => { state.hidden = new Set(); } });

  dark.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => plots.filter((plot) => !plot.drawn).forEach(draw));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(plots.find((plot) => plot.div === entry.target));
    }
  }, { rootMargin: "600px" });
  plots.forEach((plot) => watcher.observe(plot.div));
})();
