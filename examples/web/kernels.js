// The tab of kernels: a table of what the worker measures, and the roofline it draws.
const $ = id => document.getElementById(id);

/** A quick look: one of each kind, at sizes that a slow machine finishes soon. */
const FEW = ['matmul_nn_256', 'matmul_nn_512', 'matmul_32x32x1', 'gelu_fma_4m', 'sum_4m', 'softmax_1024', 'layernorm_1024',
  'adam_670k', 'conv2_forward', 'transpose_1024'];

const rate = value => digits(value, value < 1 ? 2 : value < 100 ? 1 : 0);

let worker = null, names = [], wanted = [], done = 0, failed = 0;

const digits = (value, places) => value.toLocaleString('en', { minimumFractionDigits: places, maximumFractionDigits: places });
/** Three digits that count. */
const time = ms => ms === null ? '–' : digits(ms, ms < 0.01 ? 4 : ms < 1 ? 3 : ms < 100 ? 2 : 0);

function say(text, state = 'idle') {
  Object.assign($('kernelState'), { textContent: text }).dataset.state = state;
  $('runKernels').disabled = state !== 'idle' && state !== 'done';
  $('stopKernels').disabled = state !== 'training';
  for (const id of ['kernelChoice', 'kernelSeconds']) $(id).disabled = state === 'training';
}

function row(name) {
  let line = $('kernelTable').tBodies[0].rows.namedItem(`case-${name}`);
  if (!line) {
    line = Object.assign($('kernelTable').tBodies[0].insertRow(), { id: `case-${name}` });
    line.append(Object.assign(document.createElement('th'), { scope: 'row', textContent: name }));
    for (let i = 0; i < 6; i++) line.insertCell();
  }
  return line;
}

function fill(line, cells) {
  cells.forEach((text, i) => { line.cells[i + 1].textContent = text; });
}

let current = null;
const heard = {
  names(event) {
    ({ names } = event);
    say('ready');
  },
  device({ text }) { $('kernelDevice').textContent = `Measured at best: ${text}.`; },
  case({ text }) {
    current = text;
    const line = row(text);
    line.dataset.state = 'running';
    fill(line, ['…', '', '', '', '', '']);
    line.scrollIntoView({ block: 'nearest' });
    say(`${done + 1} of ${wanted.length}`, 'training');
  },
  row({ text }) {
    const { case: name, ms_median, ms_gpu, gflops, gbps, of_peak, of_bandwidth, error_of_bound } = JSON.parse(text);
    const line = row(name), roof = Math.max(of_peak, of_bandwidth);
    line.dataset.state = 'done';
    line.style.setProperty('--share', Math.min(roof, 1));
    fill(line, [time(ms_median), `${digits(100 * roof, 0)} % ${of_bandwidth > of_peak ? 'of memory' : 'of peak'}`,
      rate(gflops), rate(gbps), time(ms_gpu), `${digits(100 * error_of_bound, 0)} %`]);
    done++;
  },
  failed({ text }) {
    const line = row(current);
    line.dataset.state = 'failed';
    fill(line, ['wrong', '', '', '', '', text]);
    done++;
    failed++;
  },
  plot({ text }) {
    $('roofline').innerHTML = text;
    $('roofline').hidden = false;
  },
  done() { say(failed ? `${failed} of ${done} wrong` : `${done} measured, all right`, failed ? 'failed' : 'done'); },
  error({ text }) {
    end();
    say(`it stopped: ${text}`, 'failed');
    $('runKernels').disabled = false;
  },
};

function end() {
  worker?.terminate();
  worker = null;
}

function begin() {
  worker = new Worker('kernels-worker.js', { type: 'module' });
  worker.onmessage = ({ data }) => {
    heard[data.kind](data);
    globalThis.wengertTest?.heard({ ...data, kind: `kernels-${data.kind}` });
  };
  worker.onerror = event => heard.error({ text: event.message ?? 'the worker could not be loaded' });
}

/** Called when the tab is shown: what nobody looks at is not even downloaded. */
export function show() {
  if (worker) return;
  say('loading', 'loading');
  begin();
}

$('runKernels').onclick = () => {
  if (!worker) begin();
  wanted = $('kernelChoice').value === 'all' ? names : names.filter(name => FEW.includes(name));
  [done, failed] = [0, 0];
  $('kernelTable').tBodies[0].replaceChildren();
  $('kernelTable').hidden = false;
  $('roofline').hidden = true;
  say('opening the GPU', 'training');
  worker.postMessage({ names: wanted, seconds: $('kernelSeconds').valueAsNumber || 0.5 });
};
$('stopKernels').onclick = () => {
  // What was submitted ends with its worker.
  end();
  const line = current && row(current);
  if (line?.dataset.state === 'running') line.remove();
  begin();
  say(`stopped after ${done}`);
};
