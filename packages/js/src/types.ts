/** Numbers: one row after the other, in row-major order. Bytes and Int32Array become i32, Uint32Array u32, all other arrays f32. */
export type Numbers = Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array | Uint8ClampedArray;

/** Rows. Of an array alone the shape follows from the model. */
export type Data = Numbers | { data: Numbers, shape: number[] };

/** What `predict` returns: `shape[0]` rows. */
export interface Output { data: Float32Array, shape: number[] }

/** Named numbers: "loss", the metrics, and, of a validation, the same after "val_". */
export type Logs = Record<string, number>;

/** A number for each axis of a window, or one for all. */
export type Size = number | number[];

/** "relu", "tanh", "softmax" ...: Keras' names. */
export type ActivationName = string;

/** A layer by its description. Words and defaults are Keras'. */
export type Layer = { name?: string, trainable?: boolean } & (
  | { type: 'dense', units: number, activation?: ActivationName, useBias?: boolean, kernelInitializer?: string }
  | { type: 'conv1d' | 'conv2d', filters: number, kernelSize: Size, strides?: Size, padding?: 'valid' | 'same' | 'causal',
      dilationRate?: Size, groups?: number, activation?: ActivationName, useBias?: boolean, kernelInitializer?: string }
  | { type: 'maxPooling1d' | 'maxPooling2d' | 'averagePooling1d' | 'averagePooling2d', poolSize?: Size, strides?: Size,
      padding?: 'valid' | 'same' }
  | { type: 'globalMaxPooling1d' | 'globalMaxPooling2d' | 'globalAveragePooling1d' | 'globalAveragePooling2d' }
  | { type: 'batchNormalization', momentum?: number, epsilon?: number, center?: boolean, scale?: boolean }
  | { type: 'layerNormalization', epsilon?: number, center?: boolean, scale?: boolean }
  | { type: 'dropout', rate: number }
  | { type: 'activation', function: ActivationName }
  | { type: 'flatten' }
  | { type: 'reshape', shape: number[] }
  | { type: 'rescaling', scale: number, offset?: number }
  | { type: 'embedding', inputDim: number, outputDim: number }
  | { type: 'lstm' | 'gru' | 'simpleRnn', units: number, returnSequences?: boolean, dropout?: number }
);

/** A model by its description. */
export interface ModelDescription {
  /** The shape of one row. */
  input: number[];
  /** What rows are made of: "f32", or "i32" for an embedding. */
  inputType?: 'f32' | 'i32';
  layers: Layer[];
  /** What the first weights are drawn from; 0 if absent. */
  seed?: number;
}

/** An optimizer with what differs from Keras' defaults. */
export type Optimizer = { learningRate?: number, weightDecay?: number, clipValue?: number, globalClipNorm?: number } & (
  | { name: 'adam', beta1?: number, beta2?: number, epsilon?: number }
  | { name: 'sgd', momentum?: number, nesterov?: boolean }
  | { name: 'rmsprop' | 'adamw' | 'adagrad' | 'adadelta' | 'adamax' | 'nadam' | 'lion' }
);

export interface CompileOptions {
  /** "rmsprop" if absent, as in Keras. */
  optimizer?: Optimizer | Optimizer['name'];
  /** "mse", "sparse_categorical_crossentropy" ...: Keras' names. */
  loss: string | { name: string, fromLogits?: boolean };
  /** "accuracy", "mae" ...: Keras' names. */
  metrics?: string[];
  /** Steps handed to the GPU at once; callbacks see every so many. Worth raising for small models. */
  stepsPerExecution?: number;
}

/** Functions that `fit` calls. A promise that one returns is awaited; what one throws ends the training. */
export interface Callbacks {
  onTrainBegin?(): unknown;
  onTrainEnd?(logs: Logs): unknown;
  onEpochBegin?(epoch: number): unknown;
  onEpochEnd?(epoch: number, logs: Logs): unknown;
  /** `logs` are the newest that have come back from the GPU, of some batch before: nothing waits for them. */
  onBatchEnd?(batch: number, logs: Logs): unknown;
}

export interface FitOptions {
  /** 1 if absent. */
  epochs?: number;
  /** 32 if absent. */
  batchSize?: number;
  /** Evaluated after each epoch: `[x, y]`. */
  validationData?: [Data, Data];
  /** The share of rows, from the end, that is held back for validation instead. */
  validationSplit?: number;
  /** True if absent. */
  shuffle?: boolean;
  /** What the order of rows is drawn from; 0 if absent. */
  seed?: number;
  initialEpoch?: number;
  stepsPerEpoch?: number;
  callbacks?: Callbacks;
}

/** The logs of every epoch: `history.loss[0]` is the loss of the first. */
export interface History { epoch: number[], history: Record<string, number[]> }
