//! Learning-rate schedules, step by step.
