// The tests of the package, in a browser: the example of README.md as it stands, and what the example does not show.

// GPU memory that is not freed, in bytes.
let held = 0;
const sizes = new WeakMap(), create = GPUDevice.prototype.createBuffer, destroy = GPUBuffer.prototype.destroy;
GPUDevice.prototype.createBuffer = function (description) {
  const buffer = create.call(this, description);
  sizes.set(buffer, description.size);
  held += description.size;
  return buffer;
};
GPUBuffer.prototype.destroy = function () {
  held -= sizes.get(this) ?? 0;
  sizes.delete(this);
  return destroy.call(this);
};

const { default: init, Sequential } = await import('./wengert.js');

function check(holds, what) {
  if (!holds) throw new Error(what);
}

function equal(is, wanted, what = 'value') {
  const [a, b] = [is, wanted].map(value => JSON.stringify(ArrayBuffer.isView(value) ? [...value] : value));
  check(a === b, `${what} is ${a}, not ${b}`);
}

async function message(act) {
  try {
    await act();
  } catch (error) {
    check(error instanceof Error, `${error} is no Error`);
    return error.message;
  }
  throw new Error('nothing was thrown');
}

async function refused(act, ...parts) {
  const text = await message(act);
  for (const part of parts) check(text.includes(part), `"${text}" does not say "${part}"`);
}

/** `count` numbers between -1 and 1 that look random and are the same each time. */
const noise = count => Float32Array.from({ length: count }, (_, i) => Math.sin(i * i + i));

const line = () => {
  const model = new Sequential({ input: [3], layers: [{ type: 'dense', units: 8, activation: 'tanh' }, { type: 'dense', units: 1 }], seed: 5 });
  model.compile({ optimizer: { name: 'adam', learningRate: 0.01 }, loss: 'mse', metrics: ['mae'] });
  const x = noise(3 * 96);
  const y = Float32Array.from({ length: 96 }, (_, i) => x[3 * i] - 0.5 * x[3 * i + 2]);
  return { model, x, y };
};

export const tests = {
  async 'the example of the README'() {
    const readme = await (await fetch('README.md')).text();
    const code = /```js\n([^]*?)```/.exec(readme)[1].replaceAll('./wengert.js', new URL('wengert.js', location.href).href);
    const source = new Blob([code, '\nexport { Sequential, history, data, shape, weights, model };'], { type: 'text/javascript' });
    const { history, data, shape, weights, model } = await import(URL.createObjectURL(source));
    check(history.accuracy.length === 30 && history.accuracy.at(-1) > 0.95, `the accuracies are ${history.accuracy}`);
    check(history.loss.at(-1) < history.loss[0] / 2, `the losses are ${history.loss}`);
    equal(shape, [2, 2], 'the shape');
    check(data[1] > data[0] && data[2] > data[3], `the centre is inside, the corner is not: ${data}`);
    check(weights.length > 8 * (2 * 32 + 32), 'the weights are a file');
    await refused(() => model.predict(new Float32Array(2)), 'disposed of');
  },

  async 'numbers of fit, evaluate and predict agree'() {
    const { model, x, y } = line();
    const seen = [];
    const { epoch, history } = await model.fit(x, y, {
      epochs: 3, batchSize: 32, validationData: [x, y], shuffle: false,
      callbacks: {
        onTrainBegin: () => seen.push('begin'), onTrainEnd: () => seen.push('end'),
        onEpochBegin: epoch => seen.push(`epoch ${epoch}`), onEpochEnd: (epoch, logs) => seen.push(`after ${epoch}`, logs.val_loss),
        onBatchEnd: batch => seen.push(batch),
      },
    });
    equal(epoch, [0, 1, 2], 'the epochs');
    const each = history.val_loss.map((loss, e) => [`epoch ${e}`, 0, 1, 2, `after ${e}`, loss]);
    equal(seen, ['begin', ...each.flat(), 'end'], 'the calls');
    const { loss, mae } = await model.evaluate(x, y, { batchSize: 32 });
    equal(loss, history.val_loss.at(-1), 'the loss');
    const { data, shape } = await model.predict({ data: x, shape: [96, 3] }, { batchSize: 50 });
    equal(shape, [96, 1], 'the shape');
    const own = data.reduce((sum, value, i) => sum + Math.abs(value - y[i]), 0) / 96;
    check(Math.abs(own - mae) < 1e-5, `the mean error is ${mae}, of the predictions ${own}`);
    model.dispose();
  },

  async 'equal seeds train to equal bits, and checkpoints go on with them'() {
    const [a, b, c] = [line(), line(), line()];
    await a.model.fit(a.x, a.y, { epochs: 2 });
    await a.model.fit(a.x, a.y, { epochs: 2 });
    await b.model.fit(b.x, b.y, { epochs: 2 });
    await c.model.restore(await b.model.checkpoint());
    await c.model.fit(c.x, c.y, { epochs: 2 });
    await b.model.load(await a.model.save());
    const wanted = (await a.model.predict(a.x)).data;
    equal((await c.model.predict(c.x)).data, wanted, 'what was restored');
    equal((await b.model.predict(b.x)).data, wanted, 'what was loaded');
    for (const { model } of [a, b, c]) model.dispose();
  },

  async 'callbacks stop, wait, predict, and throw'() {
    const { model, x, y } = line();
    let predicted;
    const stopped = await model.fit(x, y, { epochs: 50, callbacks: {
      async onEpochEnd(epoch) {
        predicted = await model.predict(x);
        if (epoch === 2) model.stop();
      },
    } });
    equal(stopped.epoch, [0, 1, 2], 'the epochs');
    equal((await model.predict(x)).data, predicted.data, 'the prediction of the last callback');
    let logs = {};
    await model.fit(x, y, { epochs: 20, batchSize: 8, callbacks: { onBatchEnd: (_, newest) => { logs = newest; } } });
    check(logs.loss > 0 && logs.mae > 0, `batches were told ${JSON.stringify(logs)}`);
    const own = new RangeError('mine');
    const thrown = await model.fit(x, y, { callbacks: { onBatchEnd() { throw own; } } }).catch(error => error);
    check(thrown === own, `${thrown} was thrown`);
    const rejected = await model.fit(x, y, { callbacks: { async onEpochEnd() { throw own; } } }).catch(error => error);
    check(rejected === own, `${rejected} was thrown`);
    const first = model.fit(x, y, { epochs: 3 });
    await refused(() => model.fit(x, y), 'in training');
    await refused(() => model.compile({ loss: 'mse' }), 'at work');
    await first;
    model.compile({ loss: 'mse' });
    model.dispose();
  },

  async 'all layers are built, trained and saved'() {
    const image = new Sequential({ input: [12, 12, 1], layers: [
      { type: 'rescaling', scale: 1 / 255 },
      { type: 'conv2d', filters: 4, kernelSize: 3, padding: 'same', activation: 'relu', name: 'first' },
      { type: 'batchNormalization' },
      { type: 'maxPooling2d' },
      { type: 'conv2d', filters: 4, kernelSize: [3, 3], strides: 2, useBias: false, trainable: false },
      { type: 'layerNormalization', epsilon: 1e-5 },
      { type: 'averagePooling2d', poolSize: 2, strides: 1 },
      { type: 'dropout', rate: 0.1 },
      { type: 'flatten' },
      { type: 'dense', units: 3, activation: 'softmax' },
    ] });
    image.compile({ optimizer: { name: 'sgd', learningRate: 0.05, momentum: 0.9, globalClipNorm: 1 }, loss: 'categorical_crossentropy', metrics: ['accuracy'] });
    const pixels = Uint8Array.from({ length: 30 * 144 }, (_, i) => (i * 37) % 256);
    const classes = Float32Array.from({ length: 90 }, (_, i) => i % 3 === Math.floor(i / 3) % 3 ? 1 : 0);
    const { history } = await image.fit(pixels, classes, { epochs: 2, validationSplit: 0.2 });
    equal(Object.keys(history), ['loss', 'accuracy', 'val_loss', 'val_accuracy'], 'the names');
    check(Object.values(history).flat().every(Number.isFinite), JSON.stringify(history));
    check(image.summary().includes('first') && image.countParams() > 100, image.summary());

    const words = new Sequential({ input: [6], inputType: 'i32', layers: [
      { type: 'embedding', inputDim: 10, outputDim: 4 },
      { type: 'conv1d', filters: 4, kernelSize: 2, padding: 'causal' },
      { type: 'activation', function: 'gelu' },
      { type: 'lstm', units: 5, returnSequences: true },
      { type: 'simpleRnn', units: 5, returnSequences: true },
      { type: 'gru', units: 5 },
      { type: 'reshape', shape: [5, 1] },
      { type: 'globalAveragePooling1d' },
      { type: 'dense', units: 1, activation: 'sigmoid' },
    ] });
    words.compile({ optimizer: 'adam', loss: 'binary_crossentropy' });
    const text = Int32Array.from({ length: 120 }, (_, i) => (i * i) % 10);
    const scores = await words.fit(text, new Float32Array(20).fill(1), { epochs: 3 });
    check(scores.history.loss[2] < scores.history.loss[0], JSON.stringify(scores));
    for (const model of [image, words]) {
      await model.load(await model.save());
      model.dispose();
    }
  },

  async 'what is wrong is thrown with what there is'() {
    const dense = options => new Sequential({ input: [4], layers: [{ type: 'dense', units: 2, ...options }] });
    await refused(() => dense({ unit: 2 }), 'has no unit', 'units', 'activation');
    await refused(() => dense({ units: 2.5 }), 'units of a layer of type dense is a whole number');
    await refused(() => dense({ type: 'dens' }), '"dens"', 'dense, conv1d');
    await refused(() => dense({ activation: 'rellu' }), 'rellu', 'relu');
    await refused(() => new Sequential({ input: [4] }), 'needs layers');
    await refused(() => new Sequential({ input: [5], layers: [{ type: 'conv2d', filters: 1, kernelSize: 3 }] }), 'conv2d');
    const model = dense();
    await refused(() => model.fit(new Float32Array(8), new Float32Array(4)), 'compile');
    await refused(() => model.compile({ loss: 'msee' }), 'msee', 'mse');
    await refused(() => model.compile({ optimizer: 'adm', loss: 'mse' }), 'adm', 'adam');
    await refused(() => model.compile({ optimizer: { name: 'adam', lr: 1 }, loss: 'mse' }), 'has no lr', 'learningRate');
    model.compile({ loss: 'mse' });
    await refused(() => model.fit(new Float32Array(7), new Float32Array(4)), '7 elements', 'rows of 4');
    await refused(() => model.fit(new Float32Array(8), new Float32Array(3)), '3 elements for 2 rows');
    await refused(() => model.fit([1, 2, 3, 4], new Float32Array(2)), 'typed array');
    await refused(() => model.fit(new Float32Array(8), new Float32Array(4), { epoch: 2 }), 'has no epoch;', 'epochs');
    await refused(() => model.load(new Uint8Array(20)), 'safetensors');
    model.dispose();
  },

  async 'a disposed model holds no memory'() {
    await new Promise(resolve => setTimeout(resolve, 100));
    const before = held;
    const { model, x, y } = line();
    await model.fit(x, y, { epochs: 2 });
    check(held > before, 'training takes memory');
    const going = model.fit(x, y, { epochs: 1000 });
    model.dispose();
    model.dispose();
    check((await going).epoch.length < 3, 'the training went on');
    await new Promise(resolve => setTimeout(resolve, 100));
    equal(held, before, 'memory held');
    equal(held, 0, 'memory of all models held');
  },
};

await init();
