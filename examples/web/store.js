// One saved training in IndexedDB, which survives a reload and works without a network.
const open = () => new Promise((resolve, reject) => {
  const request = indexedDB.open('wengert', 1);
  request.onupgradeneeded = () => request.result.createObjectStore('trainings');
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function within(mode, act) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction('trainings', mode);
      const request = act(transaction.objectStore('trainings'));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

export const save = training => within('readwrite', store => store.put(training, 'newest'));
export const load = () => within('readonly', store => store.get('newest'));
