// A line chart on a canvas: as many series as there are, one axis of steps, colours from the style sheet.

/** Points kept for a series; beyond that every second one goes. */
const MOST = 2000;

export class Chart {
  /** `series`: { name: { color: '--css-variable', dots, faint } }; `range`: [lowest, highest], or nothing to fit the data. */
  constructor(canvas, series, { range, format = value => value.toFixed(2) } = {}) {
    Object.assign(this, { canvas, series, range, format });
    this.clear();
    new ResizeObserver(() => this.redraw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.redraw());
  }

  clear() {
    this.points = Object.fromEntries(Object.keys(this.series).map(name => [name, []]));
    this.redraw();
  }

  /** Forgets what lies after a step: a training that goes on from there comes by again. */
  cut(step) {
    for (const name in this.points) this.points[name] = this.points[name].filter(([x]) => x <= step);
    this.redraw();
  }

  /** A value that is no number is a gap in the line. */
  add(name, step, value) {
    const points = this.points[name];
    points.push([step, value]);
    if (points.length > MOST) this.points[name] = points.filter((_, index) => index % 2 === 1);
    this.redraw();
  }

  redraw() {
    // At most once for each picture of the screen. Training does not wait for it.
    this.due ??= requestAnimationFrame(() => { this.due = undefined; this.draw(); });
  }

  draw() {
    const { canvas } = this, ratio = devicePixelRatio, style = getComputedStyle(canvas);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    const c = canvas.getContext('2d');
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    c.font = `11px ${style.fontFamily}`;

    const all = Object.values(this.points).flat();
    const last = all.reduce((most, [x]) => Math.max(most, x), 10);
    const [low, high] = this.range ?? [0, all.reduce((most, [, y]) => y > most ? y : most, 0) * 1.05 || 2.5];
    const left = 42, right = 8, top = 8, bottom = 20;
    const x = step => left + (width - left - right) * step / last;
    const y = value => top + (height - top - bottom) * (1 - (Math.min(value, high) - low) / (high - low));

    c.strokeStyle = style.getPropertyValue('--line');
    c.fillStyle = style.getPropertyValue('--quiet');
    c.lineWidth = 1;
    c.textBaseline = 'middle';
    c.textAlign = 'right';
    for (let i = 0; i <= 4; i++) {
      const value = low + (high - low) * i / 4, at = Math.round(y(value)) + 0.5;
      c.beginPath(); c.moveTo(left, at); c.lineTo(width - right, at); c.stroke();
      c.fillText(this.format(value), left - 6, at);
    }
    c.textBaseline = 'alphabetic';
    c.textAlign = 'left';
    c.fillText('0', left, height - 5);
    c.textAlign = 'right';
    c.fillText(`step ${Math.round(last)}`, width - right, height - 5);

    for (const [name, { color, dots, faint }] of Object.entries(this.series)) {
      c.strokeStyle = c.fillStyle = style.getPropertyValue(color);
      c.globalAlpha = faint ? 0.35 : 1;
      c.lineWidth = faint ? 1 : 2;
      c.lineJoin = 'round';
      c.beginPath();
      let drawn = false;
      for (const [step, value] of this.points[name]) {
        if (!Number.isNaN(value)) c[drawn ? 'lineTo' : 'moveTo'](x(step), y(value));
        drawn = !Number.isNaN(value);
      }
      c.stroke();
      if (dots) for (const [step, value] of this.points[name]) {
        c.beginPath(); c.arc(x(step), y(value), 3.5, 0, 7); c.fill();
      }
    }
    c.globalAlpha = 1;
  }
}
