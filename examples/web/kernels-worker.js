// The worker of the kernel benchmark: a module and a GPU device of its own, so that training and page go on.
import init, { kernelNames, measureKernels } from './web_kernels.js';

const tell = (kind, text) => postMessage({ kind, text });
const started = init().then(() => postMessage({ kind: 'names', names: kernelNames() }));
onmessage = async ({ data: { names, seconds } }) => {
  try {
    await started;
    await measureKernels(names, seconds, tell);
    postMessage({ kind: 'done' });
  } catch (error) {
    tell('error', error?.message ?? String(error));
  }
};
started.catch(error => tell('error', error?.message ?? String(error)));
addEventListener('error', event => tell('error', event.message));
addEventListener('unhandledrejection', event => tell('error', String(event.reason)));
