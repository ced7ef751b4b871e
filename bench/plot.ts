// Plots as SVG, which any browser shows and any diff reads: lines over two axes, linear or
// logarithmic, with vertical marks for moments.
import { numberText } from "./markdown.js";
import type { Axis, Plot } from "./results.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const FONT = 'font-family="sans-serif" font-size="12"';
const WIDTH = 760;
const HEIGHT = 400;
const LEFT = 72;
const RIGHT = 20;
const TOP = 64;
const BOTTOM = 52;
/** Tell apart for those who do not see all colours, too (Okabe and Ito). */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const MAX_TICKS = 8;

interface Scale {
  /** 0 to 1. */
  place(value: number): number;
  ticks: number[];
}

export function svg(plot: Plot): string {
  const points = plot.lines.flatMap((line) => line.points);
  const xs = [...points.map(([x]) => x), ...plot.marks.map(({ x }) => x)];
  const x = makeScale(plot.x, xs);
  const y = makeScale(plot.y, plot.y.scale === "linear" ? [0, ...ys(plot)] : ys(plot));
  const left = (value: number) => round(LEFT + x.place(value) * (WIDTH - LEFT - RIGHT));
  const top = (value: number) => round(HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM));
  const parts = [
    `<svg xmlns="${NAMESPACE}" viewBox="0 0 ${WIDTH} ${HEIGHT}" ${FONT}>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    text({ x: LEFT, y: 22, size: 15 }, plot.title),
    ...y.ticks.flatMap((value) => [
      line([LEFT, top(value)], [WIDTH - RIGHT, top(value)], "#dddddd"),
      text({ x: LEFT - 6, y: top(value) + 4, anchor: "end" }, numberText(value)),
    ]),
    ...x.ticks.flatMap((value) => [
      line([left(value), HEIGHT - BOTTOM], [left(value), HEIGHT - BOTTOM + 4], "#555555"),
      text({ x: left(value), y: HEIGHT - BOTTOM + 18, anchor: "middle" }, numberText(value)),
    ]),
    line([LEFT, HEIGHT - BOTTOM], [WIDTH - RIGHT, HEIGHT - BOTTOM], "#555555"),
    text({ x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 12, anchor: "middle" }, plot.x.label),
    text({ x: 8, y: TOP - 8 }, plot.y.label),
    ...plot.marks.flatMap((mark, index) => [
      line([left(mark.x), TOP], [left(mark.x), HEIGHT - BOTTOM], "#888888", "4 3"),
      text({ x: left(mark.x) + 4, y: TOP + 12 + (index % 3) * 13 }, mark.label),
    ]),
    ...plot.lines.flatMap(({ points: ofLine }, index) => {
      const colour = COLOURS[index % COLOURS.length];
      const drawable = ofLine.filter(([, value]) => plot.y.scale === "linear" || value > 0);
      const path = drawable.map(([px, py]) => `${left(px)},${top(py)}`).join(" ");
      const dots = drawable.length > 40 ? [] : drawable;
      return [
        `<polyline fill="none" stroke="${colour}" stroke-width="1.8" points="${path}"/>`,
        ...dots.map(([px, py]) => {
          return `<circle cx="${left(px)}" cy="${top(py)}" r="2.6" fill="${colour}"/>`;
        }),
      ];
    }),
    ...legend(plot.lines.map(({ name }) => name)),
    "</svg>",
  ];
  return `${parts.join("\n")}\n`;
}

function legend(names: readonly string[]): string[] {
  let x = LEFT;
  return names.flatMap((name, index) => {
    const at = x;
    x += 34 + name.length * 7;
    const colour = COLOURS[index % COLOURS.length] ?? "";
    return [
      `<rect x="${at}" y="34" width="14" height="4" fill="${colour}"/>`,
      text({ x: at + 19, y: 40 }, name),
    ];
  });
}

function ys(plot: Plot): number[] {
  const all = plot.lines.flatMap((each) => each.points.map(([, value]) => value));
  return plot.y.scale === "log" ? all.filter((value) => value > 0) : all;
}

function makeScale({ scale }: Axis, values: readonly number[]): Scale {
  return scale === "log" ? logScale(values) : linearScale(values);
}

function linearScale(values: readonly number[]): Scale {
  const low = Math.min(...values, 0);
  const high = Math.max(...values, 0) || 1;
  const rough = (high - low) / MAX_TICKS;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((each) => each >= rough) ?? rough;
  const last = Math.ceil(high / step);
  const first = Math.floor(low / step);
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
  const [from, to] = [first * step, last * step];
  return { place: (value) => (value - from) / (to - from), ticks };
}

/** Ticks at powers of ten; where those are fewer than three, at powers of two. */
function logScale(values: readonly number[]): Scale {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (!(low > 0)) return { place: () => 0, ticks: [] };
  const base =
    high / low >= 100 && values.some((value) => !Number.isInteger(Math.log2(value))) ? 10 : 2;
  const first = Math.floor(Math.log(low) / Math.log(base) + 1e-9);
  const last = Math.max(first + 1, Math.ceil(Math.log(high) / Math.log(base) - 1e-9));
  const every = Math.ceil((last - first + 1) / (MAX_TICKS * 1.5));
  const ticks: number[] = [];
  for (let power = first; power <= last; power += every) ticks.push(base ** power);
  const place = (value: number) => (Math.log(value) / Math.log(base) - first) / (last - first);
  return { place, ticks };
}

function text(
  at: { x: number; y: number; anchor?: "middle" | "end"; size?: number },
  content: string,
): string {
  const anchor = at.anchor === undefined ? "" : ` text-anchor="${at.anchor}"`;
  const size = at.size === undefined ? "" : ` font-size="${at.size}"`;
  return `<text x="${round(at.x)}" y="${round(at.y)}"${anchor}${size}>${escaped(content)}</text>`;
}

type Point = readonly [x: number, y: number];

function line([x1, y1]: Point, [x2, y2]: Point, colour: string, dashes?: string): string {
  const dashed = dashes === undefined ? "" : ` stroke-dasharray="${dashes}"`;
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${colour}"${dashed}/>`;
}

function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
