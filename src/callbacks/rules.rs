//! What callbacks decide, without a training: which epoch is the best, when to stop, when to lower the learning rate,
//! when to save.
//!
//! Each rule is a small state that is given numbers and answers. They are those of Keras 3 (`EarlyStopping`,
//! `ReduceLROnPlateau`, `ModelCheckpoint`) to the last comparison, with one difference: a NaN is never the best, where in
//! Keras the first score is, whatever it be, and no later one is then better than a NaN. Deliberately absent: names of
//! scores, learning rates on a device, files; those are the callbacks'.

/// When a score counts as better than another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Improvement {
    /// Whether more is better.
    pub up: bool,
    /// What a score must change by, to count. Its sign does not matter.
    pub min_delta: f64,
}

impl Improvement {
    /// Whether a score is better than another one, or than none. A NaN never is.
    pub fn better(&self, score: f64, than: Option<f64>) -> bool {
        let delta = self.min_delta.abs();
        match than {
            // In the order of Keras' arithmetic, so that a score at the very edge is judged alike.
            Some(than) if self.up => score - delta > than,
            Some(than) => score + delta < than,
            None => !score.is_nan(),
        }
    }
}

/// When to stop for want of a better score.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopping {
    /// What is better.
    pub improvement: Improvement,
    /// Epochs in a row without a better score after which training stops.
    pub patience: usize,
    /// A score to be better than: an epoch that is not does not count as progress, even if it is the best so far.
    pub baseline: Option<f64>,
    /// Epochs, from 0, before this one are not looked at.
    pub start_from_epoch: usize,
    pub(super) best: Option<(usize, f64)>,
    pub(super) kept: Option<usize>,
    pub(super) waited: usize,
}

/// What [`Stopping`] says of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether its weights are those to restore, as far as can be said now.
    pub keep: bool,
    /// Whether it is the last.
    pub stop: bool,
}

impl Stopping {
    /// A rule without patience, baseline and epochs to skip.
    pub fn new(improvement: Improvement) -> Stopping {
        let (baseline, best, kept) = (None, None, None);
        Stopping { improvement, patience: 0, baseline, start_from_epoch: 0, best, kept, waited: 0 }
    }

    /// Forgets all scores.
    pub fn reset(&mut self) {
        (self.best, self.kept, self.waited) = (None, None, 0);
    }

    /// Takes the score of the next epoch.
    pub fn observe(&mut self, epoch: usize, score: f64) -> Verdict {
        if epoch < self.start_from_epoch {
            return Verdict::default();
        }
        self.waited += 1;
        if self.improvement.better(score, self.best.map(|best| best.1)) {
            (self.best, self.kept) = (Some((epoch, score)), Some(epoch));
            if self.baseline.is_none_or(|baseline| self.improvement.better(score, Some(baseline))) {
                self.waited = 0;
            }
            return Verdict { keep: true, stop: false };
        }
        // If no epoch has a score at all, the first is as good as any.
        let keep = self.kept.is_none();
        self.kept.get_or_insert(epoch);
        Verdict { keep, stop: self.waited >= self.patience && epoch > 0 }
    }

    /// The best epoch, from 0, and its score.
    pub fn best(&self) -> Option<(usize, f64)> {
        self.best
    }

    /// The epoch, from 0, whose weights are to be restored.
    pub fn kept(&self) -> Option<usize> {
        self.kept
    }
}

/// When to lower the learning rate for want of a better score.
#[derive(Clone, Debug, PartialEq)]
pub struct Plateau {
    /// What is better.
    pub improvement: Improvement,
    /// What the rate is multiplied by; below 1.
    pub factor: f64,
    /// Epochs in a row without a better score after which the rate is lowered.
    pub patience: usize,
    /// Epochs after that which are not counted.
    pub cooldown: usize,
    /// The rate is not lowered below this.
    pub min_lr: f64,
    pub(super) best: Option<f64>,
    pub(super) waited: usize,
    pub(super) cooling: usize,
}

impl Plateau {
    /// A rule with the factor 0.1, a patience of 10, and neither cooldown nor least rate.
    pub fn new(improvement: Improvement) -> Plateau {
        let (patience, cooldown, best) = (10, 0, None);
        Plateau { improvement, factor: 0.1, patience, cooldown, min_lr: 0.0, best, waited: 0, cooling: 0 }
    }

    /// Forgets all scores.
    pub fn reset(&mut self) {
        (self.best, self.waited, self.cooling) = (None, 0, 0);
    }

    /// Takes the score of the next epoch, whose learning rate was `rate`: the rate to go on with, if it is another.
    pub fn observe(&mut self, score: f64, rate: f64) -> Option<f64> {
        if self.cooling > 0 {
            self.cooling -= 1;
            self.waited = 0;
        }
        if self.improvement.better(score, self.best) {
            self.best = Some(score);
            self.waited = 0;
            return None;
        }
        if self.cooling > 0 {
            return None;
        }
        self.waited += 1;
        // Rates lie on the device as f32, so the least one and one a bit above it may be the same.
        if self.waited < self.patience || rate as f32 <= self.min_lr as f32 {
            return None;
        }
        (self.waited, self.cooling) = (0, self.cooldown);
        Some((rate * self.factor).max(self.min_lr))
    }
}

/// When to save, counted in batches across epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Cadence {
    every: usize,
    pub(super) since: usize,
    pub(super) last: Option<usize>,
}

impl Cadence {
    /// Every so many batches, at least 1.
    pub fn new(every: usize) -> Cadence {
        Cadence { every, since: 0, last: None }
    }

    /// Takes the number of the last batch of a submission, from 0 in each epoch: whether it is time. The count begins
    /// anew there, so with several steps per execution it may be late, but not early.
    pub fn due(&mut self, batch: usize) -> bool {
        self.since += match self.last {
            Some(last) if batch > last => batch - last,
            _ => batch + 1,
        };
        self.last = Some(batch);
        let due = self.since >= self.every;
        if due {
            self.since = 0;
        }
        due
    }
}
