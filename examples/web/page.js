// The page: shows what the worker reports and sends it what is clicked. It computes nothing, so it never hangs.
import { Chart } from './chart.js';
import { Pad } from './pad.js';
import * as kernels from './kernels.js';
import * as store from './store.js';

const $ = id => document.getElementById(id);
const count = number => number.toLocaleString('en');
const testing = new URLSearchParams(location.search).has('test');

/** What the worker last said, by kind; the test looks at it too. */
const seen = {};
/** The settings of the training that is shown. */
let settings = null;
let state = 'loading', steps = 0, epochs = 0, step = 0, saved = null;
let worker = null;

const charts = {
  loss: new Chart($('loss'), {
    batch: { color: '--accent', faint: true }, mean: { color: '--accent' }, test: { color: '--test', dots: true },
  }),
  accuracy: new Chart($('accuracy'), { mean: { color: '--accent' }, test: { color: '--test', dots: true } },
    { range: [0, 1], format: value => `${Math.round(100 * value)} %` }),
};

const pad = new Pad($('pad'), ask);
for (let digit = 0; digit < 10; digit++) {
  $('bars').append(Object.assign(document.createElement('li'), { textContent: digit }));
}

const send = (...message) => worker.postMessage(message);

// ---- what the page looks like in which state

function become(next, text = next) {
  state = next;
  Object.assign($('state'), { textContent: text }).dataset.state = next;
  const busy = state === 'training' || state === 'paused';
  const rest = state === 'idle' || state === 'restored' || state === 'done';
  $('start').disabled = !rest;
  $('start').textContent = state === 'restored' || state === 'done' ? 'Train anew' : 'Train';
  $('pause').disabled = !(busy || state === 'restored');
  $('pause').textContent = state === 'paused' || state === 'restored' ? 'Resume' : 'Pause';
  $('stop').disabled = !busy;
  $('save').disabled = !(busy || state === 'done');
  $('download').disabled = !(busy || state === 'restored' || state === 'done');
  $('restore').disabled = !(rest && saved);
  for (const id of ['epochs', 'batch', 'seed']) $(id).disabled = !rest;
}

function trouble(title, text, cures = [], note = false) {
  const [head, body, list] = $('trouble').children;
  head.textContent = title;
  body.textContent = text;
  list.replaceChildren(...cures.map(cure => Object.assign(document.createElement('li'), { textContent: cure })));
  $('trouble').hidden = false;
  $('trouble').classList.toggle('note', note);
}

function progress() {
  const all = steps * epochs;
  $('progress').value = all ? step / all : 0;
  $('where').textContent = all
    ? `step ${count(step)} of ${count(all)}, epoch ${Math.min(Math.floor(step / steps) + 1, epochs)} of ${epochs}` : 'no steps yet';
}

function show(curves) {
  for (const name in charts) {
    charts[name].points = curves[name];
    charts[name].redraw();
  }
}

// ---- what the worker says

let mark = null;

const heard = {
  begin(event) {
    ({ steps, epochs, step } = event);
    for (const chart of Object.values(charts)) chart.cut(step);
    $('parameters').textContent = count(event.parameters);
    mark = null;
    become('training');
    progress();
  },

  step(event) {
    // The means of an epoch start over with it, and so does their line.
    if (Math.ceil(event.step / steps) !== Math.ceil(step / steps)) {
      for (const chart of Object.values(charts)) chart.add('mean', step, NaN);
    }
    step = event.step;
    charts.loss.add('batch', step, event.batchLoss);
    charts.loss.add('mean', step, event.loss);
    charts.accuracy.add('mean', step, event.accuracy);
    $('lossNow').textContent = event.loss.toFixed(4);
    $('norm').textContent = event.gradientNorm.toPrecision(3);
    $('memory').textContent = `${(event.memory / 2 ** 20).toFixed(1)} MiB`;
    const now = performance.now();
    if (mark && now - mark.now > 400 && step > mark.step) {
      $('stepTime').textContent = `${((now - mark.now) / (step - mark.step)).toFixed(1)} ms`;
      mark = null;
    }
    mark ??= { now, step };
    progress();
    if (now - asked > 300) ask(pad.pixels());
  },

  epoch(event) {
    charts.loss.add('test', event.step, event.testLoss);
    charts.accuracy.add('test', event.step, event.testAccuracy);
    $('score').textContent = `${(100 * event.testAccuracy).toFixed(1)} %`;
    mark = null;
    ask(pad.pixels());
  },

  paused() { become('paused'); mark = null; },
  resumed() { become('training'); },
  end(event) {
    ({ step } = event);
    become('done', step < steps * epochs ? 'stopped' : 'done');
    progress();
    ask(pad.pixels());
  },

  prediction({ probabilities }) {
    const best = probabilities.indexOf(Math.max(...probabilities));
    [...$('bars').children].forEach((bar, digit) => {
      bar.style.setProperty('--share', probabilities[digit].toFixed(3));
      bar.classList.toggle('best', digit === best);
    });
    $('guess').textContent = `Probably a ${best} (${Math.round(100 * probabilities[best])} %).`;
  },

  async saved({ step, file, weights }) {
    const curves = Object.fromEntries(Object.entries(charts).map(([name, chart]) => [name, chart.points]));
    saved = { settings, step, file, weights, curves, score: $('score').textContent };
    try {
      await store.save(saved);
      $('kept').textContent = `Saved in this browser at step ${count(step)} (${count(file.length)} bytes).`;
    } catch (error) {
      $('kept').textContent = `It could not be saved: ${error?.message ?? error}`;
    }
    become(state, $('state').textContent);
  },

  restored(event) {
    ({ step } = event);
    $('kept').textContent = `Restored at step ${count(step)}. Resume goes on with the next one.`;
    become('restored');
    progress();
    ask(pad.pixels());
  },

  weights({ file }) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([file]));
    link.download = 'weights.safetensors';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  },

  images({ train, test }) {
    $('dataset').textContent = `${count(train)} images of yours, tested on ${count(test)} others.`;
  },

  lost({ message, step }) {
    become('lost', 'device lost');
    trouble('The GPU device was lost', message,
      [`Training goes on by itself from step ${count(step)}, the newest snapshot.`], true);
  },

  error({ message, fatal }) {
    become(fatal ? 'failed' : 'idle', fatal ? 'failed' : 'stopped by an error');
    trouble('Something went wrong', message, fatal ? ['Reload the page; a saved training can be restored.'] : []);
  },
};

// ---- what is clicked

let asked = 0, pixels = null;

function ask(drawn) {
  pixels = drawn;
  if (!drawn) {
    for (const bar of $('bars').children) { bar.style.setProperty('--share', 0); bar.classList.remove('best'); }
    return;
  }
  // A pen moves faster than anybody reads.
  const now = performance.now();
  if (now - asked < 100) {
    setTimeout(() => { if (pixels === drawn) ask(drawn); }, 110);
    return;
  }
  asked = now;
  if (state === 'idle' || state === 'loading') $('guess').textContent = 'It has learned nothing yet: train it first.';
  else if (state !== 'lost' && state !== 'failed') send('predict', drawn);
}

$('start').onclick = () => {
  const number = id => $(id).valueAsNumber || undefined;
  settings = { epochs: number('epochs'), batchSize: number('batch'), seed: $('seed').valueAsNumber || 0 };
  if (testing) Object.assign(settings, JSON.parse(new URLSearchParams(location.search).get('settings') ?? '{}'));
  for (const chart of Object.values(charts)) chart.clear();
  for (const id of ['score', 'lossNow', 'stepTime', 'norm']) $(id).textContent = '–';
  $('trouble').hidden = true;
  become('training', 'preparing');
  send('start', settings);
};
$('pause').onclick = () => {
  if (state === 'training') send('pause');
  else {
    become('training', state === 'restored' ? 'preparing' : 'training');
    send('resume');
  }
};
$('stop').onclick = () => { send('stop'); };
$('save').onclick = () => { send('save'); };
$('download').onclick = () => { send('weights'); };
$('restore').onclick = () => {
  ({ settings } = saved);
  [$('epochs').value, $('batch').value, $('seed').value] = [settings.epochs, settings.batchSize, settings.seed];
  show(structuredClone(saved.curves));
  $('score').textContent = saved.score;
  become('loading', 'restoring');
  send('restore', settings, saved.file);
};
$('clear').onclick = () => pad.clear();

// ---- data of one's own

/** The bytes of a file, unpacked if it is gzipped. */
async function bytes(file) {
  const [first, second] = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const plain = first === 0x1f && second === 0x8b ? file.stream().pipeThrough(new DecompressionStream('gzip')) : file.stream();
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

async function take(files) {
  if ($('start').disabled) {
    $('dataset').textContent = 'Stop the training first; then drop the files again.';
    return;
  }
  const named = pattern => [...files].find(file => pattern.test(file.name));
  const train = named(/train.*images/) ?? named(/^(?!t10k|test).*images/);
  const labels = named(/train.*labels/) ?? named(/^(?!t10k|test).*labels/);
  const test = [named(/(t10k|test).*images/), named(/(t10k|test).*labels/)];
  if (!train || !labels) {
    $('dataset').textContent = 'Two files are needed at least, with "images" and "labels" in their names.';
    return;
  }
  const read = [train, labels, ...(test.every(Boolean) ? test : [])];
  try {
    send('images', ...await Promise.all(read.map(bytes)));
  } catch (error) {
    $('dataset').textContent = `These files could not be read: ${error?.message ?? error}`;
  }
}

$('files').onchange = event => take(event.target.files);
document.querySelector('.link').onkeydown = event => { if (event.key === 'Enter' || event.key === ' ') $('files').click(); };
for (const kind of ['dragover', 'dragleave', 'drop']) addEventListener(kind, event => {
  event.preventDefault();
  $('drop').classList.toggle('over', kind === 'dragover');
  if (kind === 'drop') take(event.dataTransfer.files);
});

// ---- the tabs

const tabs = [...document.querySelectorAll('[role=tab]')];

function choose(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute('aria-selected', chosen);
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute('aria-controls')).hidden = !chosen;
  }
  if (tab.id === 'tab-kernels' && state !== 'failed') kernels.show();
}

for (const tab of tabs) {
  tab.onclick = () => choose(tab);
  tab.onkeydown = event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = tabs.at((tabs.indexOf(tab) + step) % tabs.length);
    next.focus();
    choose(next);
  };
}

// ---- the start

async function start() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) {
    become('failed', 'no WebGPU');
    trouble('This browser offers no WebGPU here', navigator.gpu
      ? 'WebGPU is there, but no GPU that it would use.'
      : isSecureContext ? 'It is too old for it, or it is switched off.' : 'Pages may use it over https or from localhost only.', [
      'Chrome and Edge: version 113 or newer on Windows, macOS and ChromeOS, 121 on Android.',
      'Linux: Chrome 145 or newer, or the switch chrome://flags/#enable-unsafe-webgpu.',
      'Safari 26 or newer; Firefox 141 or newer on Windows, 145 on Macs with Apple silicon.',
      'In a virtual machine without a GPU, start Chrome with --enable-unsafe-webgpu --use-webgpu-adapter=swiftshader.',
    ]);
    return;
  }
  const { vendor, architecture, description } = adapter.info;
  $('adapter').textContent = `GPU: ${[description || vendor, architecture].filter(Boolean).join(', ') || 'unnamed'}`
    + (adapter.info.isFallbackAdapter ? ' (software: a real GPU is much faster)' : '');
  worker = new Worker('worker.js', { type: 'module', name: testing ? 'test' : 'training' });
  worker.onmessage = ({ data }) => {
    seen[data.kind] = data;
    heard[data.kind]?.(data);
    globalThis.wengertTest?.heard(data);
  };
  worker.onerror = event => heard.error({ message: event.message ?? 'the worker could not be loaded', fatal: true });
  try {
    saved = await store.load();
    if (saved) $('kept').textContent = `A training of step ${count(saved.step)} is saved in this browser.`;
  } catch {
    $('kept').textContent = 'This browser keeps no data for the page (a private window?), so nothing can be saved.';
  }
  become('idle', 'ready');
}

if (testing) {
  // What a test needs and no button has.
  const long = [];
  new PerformanceObserver(list => long.push(...list.getEntries().map(entry => entry.duration))).observe({ type: 'longtask' });
  const events = [];
  globalThis.wengertTest = { seen, long, events, heard: event => events.push({ ...event, file: undefined }), send };
}
await start();
