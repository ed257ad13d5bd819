// A canvas to draw a digit on, with a pointer or with the arrow keys, and the drawing as the network wants it.

const SIDE = 28;

export class Pad {
  /** Calls `changed` with the pixels, a Float32Array of 784 in [0, 1], or with null when the canvas is empty. */
  constructor(canvas, changed) {
    Object.assign(this, { canvas, changed, strokes: [], pen: [0.5, 0.5] });
    canvas.addEventListener('pointerdown', event => {
      canvas.setPointerCapture(event.pointerId);
      this.strokes.push([this.place(event)]);
      this.update();
    });
    canvas.addEventListener('pointermove', event => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      this.strokes.at(-1).push(this.place(event));
      this.update();
    });
    canvas.addEventListener('keydown', event => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === 'Delete' || event.key === 'Backspace') this.clear();
      else if (event.key === ' ') this.down = !this.down;
      else if (!move) return;
      event.preventDefault();
      if (move) this.pen = this.pen.map((at, axis) => Math.min(Math.max(at + move[axis] / SIDE, 0), 1));
      if (this.down && event.key === ' ') this.strokes.push([this.pen]);
      else if (this.down && move) this.strokes.at(-1)?.push(this.pen);
      this.update();
    });
    for (const kind of ['focus', 'blur']) canvas.addEventListener(kind, () => { this.down = false; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  place(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }

  clear() {
    Object.assign(this, { strokes: [], down: false });
    this.update();
  }

  update() {
    this.draw();
    this.changed(this.pixels());
  }

  /** Strokes on a context, mapped by `at`; a stroke of one point is a dot. */
  ink(c, at, width) {
    Object.assign(c, { lineCap: 'round', lineJoin: 'round', lineWidth: width });
    for (const stroke of this.strokes) {
      c.beginPath();
      for (const point of stroke.length > 1 ? stroke : [stroke[0], stroke[0]]) c.lineTo(...at(point));
      c.stroke();
    }
  }

  draw() {
    const { canvas } = this, side = Math.round(canvas.clientWidth * devicePixelRatio), c = canvas.getContext('2d');
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const style = getComputedStyle(canvas);
    c.clearRect(0, 0, side, side);
    c.strokeStyle = style.color;
    this.ink(c, point => point.map(x => x * side), side * 0.075);
    if (document.activeElement === canvas && canvas.matches(':focus-visible')) {
      c.fillStyle = style.getPropertyValue(this.down ? '--accent' : '--quiet');
      c.beginPath(); c.arc(...this.pen.map(x => x * side), side * 0.02, 0, 7); c.fill();
    }
  }

  /** Digits of the training set are about 18 pixels high, in the middle: so is this, however it was drawn. */
  pixels() {
    const points = this.strokes.flat();
    if (!points.length) return null;
    const [low, high] = [Math.min, Math.max].map(most => [0, 1].map(axis => most(...points.map(p => p[axis]))));
    const extent = Math.max(high[0] - low[0], high[1] - low[1], 1e-3);
    const scale = Math.min(18 / extent, 40);
    const middle = [0, 1].map(axis => (low[axis] + high[axis]) / 2);
    const small = new OffscreenCanvas(SIDE, SIDE), c = small.getContext('2d', { willReadFrequently: true });
    c.strokeStyle = '#fff';
    this.ink(c, point => point.map((x, axis) => SIDE / 2 + (x - middle[axis]) * scale), 2.4);
    const { data } = c.getImageData(0, 0, SIDE, SIDE);
    return Float32Array.from({ length: SIDE * SIDE }, (_, i) => data[4 * i + 3] / 255 * 0.9);
  }
}
