// The worker: the wasm module with its GPU device lives here, so that no step ever holds up the page.
//
// A message is [method, ...arguments] of `Trainer` (see web.d.ts); what the trainer reports is passed on as it is.
import init, { Trainer } from './web.js';

async function start() {
  if (self.name === 'test') await import('./testing.js');
  const { memory } = await init();
  return new Trainer(event => {
    event.heap = memory.buffer.byteLength;
    postMessage(event);
  });
}

// Messages that come meanwhile wait for it in their order.
const trainer = start();
trainer.catch(error => postMessage({ kind: 'error', message: String(error), fatal: true }));
onmessage = async ({ data: [method, ...words] }) => {
  if (method === 'loseDevice') self.loseDevice?.();
  else (await trainer)[method](...words);
};

// A panic traps, which is an error nobody catches.
addEventListener('error', event => postMessage({ kind: 'error', message: event.message, fatal: true }));
addEventListener('unhandledrejection', event => postMessage({ kind: 'error', message: String(event.reason), fatal: true }));
