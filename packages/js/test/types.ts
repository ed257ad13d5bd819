// Type-checked by scripts/js, never run: what the types must allow, and, marked, what they must refuse.
import init, { Sequential, type Data, type FitOptions, type History, type Layer, type Logs, type Output } from './wengert.js';

await init();
const layers: Layer[] = [
  { type: 'conv2d', filters: 8, kernelSize: [3, 3], padding: 'same' },
  { type: 'dense', units: 2, activation: 'relu', name: 'last', trainable: false },
];
// @ts-expect-error: a dense layer needs units
layers.push({ type: 'dense' });
// @ts-expect-error: there is no such layer
layers.push({ type: 'dens', units: 2 });
const model = new Sequential({ input: [28, 28, 1], layers });
model.compile({ optimizer: { name: 'adam', learningRate: 1e-3 }, loss: 'mse', metrics: ['mae'] });
// @ts-expect-error: the option is called learningRate
model.compile({ optimizer: { name: 'adam', lr: 1e-3 }, loss: 'mse' });
// @ts-expect-error: a loss is needed
model.compile({ optimizer: 'adam' });
const x: Data = new Float32Array(784), y: Data = { data: new Int32Array(1), shape: [1] };
const options: FitOptions = { epochs: 2, validationData: [x, y], callbacks: { onEpochEnd: async (epoch, logs) => console.log(epoch + 1, logs.loss) } };
const history: History = await model.fit(x, y, options);
const losses: number[] | undefined = history.history['loss'];
const scores: Logs = await model.evaluate(x, y);
const output: Output = await model.predict(x, { batchSize: 8 });
// @ts-expect-error: predictions are floats
const wrong: Int32Array = output.data;
const file: Uint8Array = await model.save();
await model.load(file);
model.dispose();
export { losses, scores, wrong };
