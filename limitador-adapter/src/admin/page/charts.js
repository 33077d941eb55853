// Charts over time. uPlot draws on a canvas, so each chart has a table with the same numbers.

import { useEffect, useRef, useState } from './vendor/hooks.js';
import { CAUSES, minute, number } from './format.js';
import { html } from './parts.js';

let loading;

// uPlot is loaded by the first chart only.
function library() {
  loading ??= new Promise((resolve, reject) => {
    const link = Object.assign(document.createElement('link'), { rel: 'stylesheet', href: 'page/vendor/uplot.css' });
    const script = Object.assign(document.createElement('script'), { src: 'page/vendor/uplot.js' });
    script.onload = () => resolve(globalThis.uPlot);
    script.onerror = () => { loading = undefined; reject(new Error('the chart library cannot be loaded')); };
    document.head.append(link, script);
  });
  return loading;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The sums of each series and all later ones, so that bars drawn over each other look stacked.
function stacked(series) {
  const sums = [];
  let below = series[0]?.values.map(() => 0) ?? [];
  for (const { values } of series) {
    below = below.map((sum, index) => sum + values[index]);
    sums.push(below);
  }
  return sums;
}

function options(uPlot, { series, format, tick, width, height, step }) {
  const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
  return {
    width,
    height,
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: false, range: (_, min, max) => [min - 0.6, max + 0.6] },
      y: { range: (_, min, max) => [0, max > 0 ? max * 1.08 : 1] },
    },
    axes: [
      { ...axis, grid: { show: false }, values: (_, places) => places.map((place) => (Number.isInteger(place) ? tick(place) : '')), incrs: [step, step * 2, step * 4, step * 8], size: 26 },
      { ...axis, values: (_, values) => values.map((value) => (Number.isInteger(value) || value > 10 || format.isFine ? format(value) : '')), size: 46 },
    ],
    // The largest sum is drawn first.
    series: [{}, ...[...series].reverse().map(({ colour: name }) => ({
      fill: colour(name), stroke: colour(name), width: 0, points: { show: false },
      paths: uPlot.paths.bars({ size: [0.72, 40], align: 0 }),
    }))],
    padding: [8, 8, 0, 0],
  };
}

// A chart of stacked bars. `labels` names the bars, and `tick` shortens a label for the axis. Each series has `name`, `colour` (a custom property) and `values`.
export function StackedBars({ title, labels, series, format, tick = (label) => label, step = 1, height = 220, first = 'Time' }) {
  const box = useRef();
  const [error, setError] = useState('');
  const [round, setRound] = useState(0);
  useEffect(() => {
    const redraw = () => setRound((n) => n + 1);
    const dark = matchMedia('(prefers-color-scheme: dark)');
    addEventListener('weir-theme', redraw);
    dark.addEventListener('change', redraw);
    return () => {
      removeEventListener('weir-theme', redraw);
      dark.removeEventListener('change', redraw);
    };
  }, []);
  const drawn = JSON.stringify([labels, series]);
  useEffect(() => {
    let chart;
    let observer;
    let isOver = false;
    const draw = async () => {
      try {
        const uPlot = await library();
        if (isOver || !box.current) return;
        const data = [labels.map((_, index) => index), ...stacked(series).reverse()];
        const place = box.current;
        const size = () => ({ width: Math.max(120, place.clientWidth), height });
        place.replaceChildren();
        chart = new uPlot(options(uPlot, { series, format, step, tick: (index) => tick(labels[index] ?? ''), ...size() }), data, place);
        observer = new ResizeObserver(() => chart.setSize(size()));
        observer.observe(place);
      } catch (problem) {
        setError(problem.message);
      }
    };
    draw();
    return () => {
      isOver = true;
      observer?.disconnect();
      chart?.destroy();
    };
  }, [drawn, round, height]);
  const total = series.map(({ values }) => values.reduce((sum, value) => sum + value, 0));
  return html`<figure class="chart">
    <figcaption><span class="hidden">${title}</span>
      <ul class="legend">${series.map(({ name, colour: of }, index) => html`<li key=${name}>
        <span class="swatch" style=${{ background: `var(${of})` }} aria-hidden="true"></span><bdi>${name}</bdi> <strong>${format(total[index])}</strong></li>`)}</ul>
    </figcaption>
    ${error ? html`<p class="error">${error}</p>` : html`<div class="plot" style=${{ height: `${height}px` }} ref=${box} aria-hidden="true"></div>`}
    <details><summary>Show as a table</summary>
      <div class="table-box scroll" tabindex="0" role="region" aria-label=${title}><table>
        <caption>${title}</caption>
        <thead><tr><th scope="col">${first}</th>${series.map(({ name }) => html`<th key=${name} scope="col" class="num"><bdi>${name}</bdi></th>`)}</tr></thead>
        <tbody>${labels.map((label, index) => html`<tr key=${label}><th scope="row">${label}</th>
          ${series.map(({ name, values }) => html`<td key=${name} class="num">${format(values[index])}</td>`)}</tr>`)}</tbody>
      </table></div>
    </details>
  </figure>`;
}

const CAUSE_COLOURS = { usedUp: '--series-1', inFlight: '--series-2', tooLarge: '--series-3' };

export function MinutesChart({ minutes, height = 200 }) {
  if (!minutes) return html`<p class="muted">Waiting for the adapter</p>`;
  const series = Object.entries(CAUSES).map(([cause, name]) => ({
    name, colour: CAUSE_COLOURS[cause], values: minutes.map((one) => one[cause]),
  }));
  if (series.every(({ values }) => values.every((value) => value === 0))) {
    return html`<p class="muted calm">No request was refused in the last hour.</p>`;
  }
  return html`<${StackedBars} title="Refused requests per minute, by cause" labels=${minutes.map((one) => minute(one.time))}
    series=${series} format=${number} step=${5} height=${height} first="Minute" />`;
}
