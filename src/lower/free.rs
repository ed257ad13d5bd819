//! Changes to a program that cost nothing: no more dispatches, and no more bytes read.
//!
//! Whether one helps shows only in what becomes of the whole program, so each is tried: sums of columns ride along with rows
//! (`columns`), and elementwise values are computed again where that lowers the peak of memory (`remat`). The same changes are made to the
//! program of a smaller batch. Deliberately absent: anything that trades one for the other.

use super::columns;
use super::program::{Id, Kind, Program};
use super::remat::{Again, Candidate, candidates, planned};
use super::{Compiled, Options, Request, Target, compile};
use crate::collections::{Set, Table};
use crate::dtype::DType;
use crate::error::Result;

/// How a program was changed although nobody set a budget, because it costs nothing: no more dispatches, no more bytes read.
#[derive(Clone, Debug)]
pub struct Free {
    /// The program as recorded.
    pub program: Program,
    steps: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Again(Again),
    Columns(Vec<(Id, usize)>),
}

impl Change {
    fn applied(&self, program: &Program) -> (Program, Table<Id, Id>) {
        match self {
            Change::Again(again) => again.applied(program),
            Change::Columns(folds) => columns::split(program, folds),
        }
    }
}

/// Attempts, each of which compiles, and the hundredths of all temporaries that one has to win, or may cost where it wins
/// something else.
const TRIED: usize = 8;
const WORTH: u64 = 2;

impl Free {
    /// The same changes to a program of the same form, its request, and where its values are now.
    pub fn repeated(&self, program: &Program, request: &Request) -> (Program, Request, Table<Id, Id>) {
        let kept = (0..program.vals.len()).map(|id| (id, id)).collect();
        self.steps.iter().fold((program.clone(), request.clone(), kept), |(program, request, places), step| {
            let (next, to) = step.applied(&program);
            (next, renumbered(&request, &to), composed(&places, &to))
        })
    }

    /// The same changes, of another program as recorded.
    pub fn of(&self, program: Program) -> Free {
        Free { program, steps: self.steps.clone() }
    }
}

/// Compiles a program, has sums of columns ride along with rows, and computes elementwise values again where that lowers the
/// peak for nothing. Also says where each value of the program is now, if something is.
pub fn compile_free(
    program: Program,
    request: &Request,
    target: &Target,
    options: &Options,
) -> Result<(Compiled, Option<Free>, Table<Id, Id>)> {
    let mut best = compile(program, request, target, options)?;
    let bytes = |compiled: &Compiled| compiled.temporaries().iter().sum::<u64>();
    let (mut free, mut moved, mut refused) = (None::<Free>, Table::new(), Set::new());
    let mut folds = if options.fuse { columns::candidates(&best, target) } else { Vec::new() };
    while !folds.is_empty() {
        let (program, to) = columns::split(&best.program, &folds);
        let next = compile(program, &renumbered(&best.request, &to), target, options)?;
        let mut riding = folds.clone();
        riding.retain(|(fold, _)| columns::rides(&next, to[fold]));
        let dear =
            bytes(&next) * 100 > bytes(&best) * (100 + WORTH) || next.schedule.jobs.len() > best.schedule.jobs.len();
        if !riding.is_empty() && !dear {
            let before = std::mem::replace(&mut best, next);
            free = Some(Free { program: before.program, steps: vec![Change::Columns(folds)] });
            moved = to;
            break;
        }
        // Where that takes more, perhaps those alone that found rows to ride along with.
        folds = if riding.len() < folds.len() { riding } else { Vec::new() };
    }
    // All at once, else one after the other.
    let mut count = usize::MAX;
    for _ in 0..if options.fuse { TRIED } else { 0 } {
        let found = candidates(&best, &refused, true).into_iter().filter(|candidate| is_free(&best, candidate));
        let chosen: Vec<Candidate> = found.take(count).collect();
        if chosen.is_empty() {
            break;
        }
        let (mut program, mut request) = (best.program.clone(), best.request.clone());
        let (mut steps, mut places) = (Vec::new(), None::<Table<Id, Id>>);
        for candidate in &chosen {
            let Some(step) = planned(&best, &program, candidate, places.as_ref()) else { continue };
            let (next, to) = step.applied(&program);
            (program, request) = (next, renumbered(&request, &to));
            places = Some(places.map_or_else(|| to.clone(), |before| composed(&before, &to)));
            steps.push(Change::Again(step));
        }
        let next = compile(program, &request, target, options)?;
        let wins = bytes(&next) * 100 <= bytes(&best) * (100 - WORTH) && next.placement.live < best.placement.live;
        if let Some(places) = places.filter(|_| wins && next.schedule.jobs.len() <= best.schedule.jobs.len()) {
            let before = std::mem::replace(&mut best, next);
            free.get_or_insert_with(|| Free { program: before.program, steps: Vec::new() }).steps.extend(steps);
            moved = if moved.is_empty() { places.clone() } else { composed(&moved, &places) };
            refused = refused.iter().filter_map(|id| places.get(id).copied()).collect();
        } else if chosen.len() > 1 {
            count = 1;
        } else {
            refused.insert(chosen[0].value);
        }
    }
    Ok((best, free, moved))
}

/// Whether a value is made by maps and views of at most as many bytes as it has, one heavy function among them at most and no
/// random numbers, which are heavy functions of integers.
fn is_free(compiled: &Compiled, candidate: &Candidate) -> bool {
    let vals = &compiled.program.vals;
    let maps = candidate.cone.iter().all(|&id| match &vals[id].kind {
        Kind::Map(map) => !map.heavy || vals[id].dtype == DType::F32,
        kind => matches!(kind, Kind::View(_)),
    });
    let heavy = candidate.cone.iter().filter(|&&id| matches!(&vals[id].kind, Kind::Map(map) if map.heavy)).count();
    let read = Set::<Id>::from_iter(candidate.cone.iter().flat_map(|&id| vals[id].inputs.iter().copied()));
    let read = read.iter().filter(|id| !candidate.cone.contains(id) && !matches!(vals[**id].kind, Kind::Scalar(_)));
    maps && heavy <= 1 && read.map(|&id| vals[id].bytes()).sum::<u64>() <= vals[candidate.value].bytes()
}

pub(super) fn composed(first: &Table<Id, Id>, second: &Table<Id, Id>) -> Table<Id, Id> {
    first.iter().filter_map(|(&from, through)| Some((from, *second.get(through)?))).collect()
}

pub(super) fn renumbered(request: &Request, to: &Table<Id, Id>) -> Request {
    let new = |id: &Id| to.get(id).copied();
    Request {
        replaces: request.replaces.iter().filter_map(|(leaf, value)| Some((new(leaf)?, new(value)?))).collect(),
        state: request.state.iter().filter_map(new).collect(),
        results: request.results.iter().filter_map(new).collect(),
    }
}
