// For the test alone (the page with ?test): keeps the GPU devices that are made, so that one can be destroyed under the
// training, as a driver's crash would.
const devices = [], request = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...words) {
  const device = await request.apply(this, words);
  devices.push(device);
  return device;
};
self.loseDevice = () => devices.at(-1).destroy();
