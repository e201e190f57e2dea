//! Start values of all tensors of an adapter.
//!
//! In: a plan, and where weights are read from. Out: a tensor for every parameter of the plan. What
//! holds: a module's weight is read once for all of its tensors, and a matrix decomposed once; modules
//! are computed side by side, no more of them at a time than there are threads, so that no more
//! weights than these are in memory; neither values nor diagnostics depend on how many threads there
//! are. What start values join over all modules is computed first, each module's part by itself. Not here:
//! what a start value is (`initial`).

use super::calibration::{self, Calibration};
use super::initial::{Origin, Sources, WeightReader};
use super::plan::Plan;
use crate::diag::{Diagnostic, Reported, Severity, Sink};
use crate::graph::{Model, Tensor};
use crate::hir::Init;
use crate::modules::Modules;
use crate::ty::DType;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Where start values come from.
pub struct Starts<'a> {
    /// Of random numbers.
    pub seed: u64,
    pub weights: &'a WeightReader<'a>,
    /// Tensors that replace start values, by name, already checked against the plan.
    pub values: &'a BTreeMap<String, Tensor>,
    /// What data tells of the modules, if it has been asked.
    pub calibration: Option<&'a Calibration>,
    /// Hears how many modules are done, and of how many, where they take time.
    pub progress: &'a dyn Fn(usize, usize),
}

impl<'a> Starts<'a> {
    /// Without anybody to tell.
    pub fn new(
        seed: u64,
        weights: &'a WeightReader<'a>,
        values: &'a BTreeMap<String, Tensor>,
    ) -> Starts<'a> {
        Starts {
            seed,
            weights,
            values,
            calibration: None,
            progress: &|_, _| {},
        }
    }
}

/// A tensor for every parameter of the plan, in its order.
pub fn start_values(
    plan: &Plan,
    model: &Model,
    modules: &Modules,
    starts: &Starts<'_>,
    sink: &mut Sink,
) -> Result<Vec<Tensor>, Reported> {
    let has_value = |name: &str| starts.values.contains_key(name);
    calibration::check(plan, modules, starts.calibration, has_value, sink)?;
    let given = |name: &String| starts.values.get(name).cloned();
    let mut found: Vec<Option<Tensor>> = plan.parameters.iter().map(|p| given(&p.name)).collect();
    let mut work = Work {
        joined: Joined::new(),
        sources: Sources {
            model,
            seed: starts.seed,
            weights: starts.weights,
            calibration: starts.calibration,
        },
        plan,
        modules,
    };
    work.join(&found, starts.progress, sink)?;
    let (shared, own) = jobs(plan, &found);
    for job in &shared {
        for (index, tensor) in work.done(job, &found, sink)? {
            found[index] = Some(tensor);
        }
    }
    let values = |job: &Job, sink: &mut Sink| work.done(job, &found, sink);
    for (index, tensor) in work.side_by_side(&own, &values, starts.progress, sink)? {
        found[index] = Some(tensor);
    }
    Ok(found.into_iter().flatten().collect())
}

/// Parameters of one module, or of one part of it, in the order of the plan.
type Job = Vec<usize>;

/// Start values by the number of their parameter.
type Made = Vec<(usize, Tensor)>;

/// What several modules share and all that it reads, in the order of the plan; then everything else,
/// which reads only these and its own module's.
fn jobs(plan: &Plan, found: &[Option<Tensor>]) -> (Vec<Job>, Vec<Job>) {
    let mut is_early: Vec<bool> = plan.parameters.iter().map(|p| p.module.is_none()).collect();
    // What a parameter reads stands before it.
    for (index, parameter) in plan.parameters.iter().enumerate().rev() {
        if is_early[index] {
            parameter
                .reads
                .iter()
                .for_each(|read| is_early[*read] = true);
        }
    }
    let missing = (0..plan.parameters.len()).filter(|index| found[*index].is_none());
    let (early, late): (Vec<usize>, Vec<usize>) = missing.partition(|index| is_early[*index]);
    let place = |index: &usize| {
        let parameter = &plan.parameters[*index];
        let slice = parameter.slice.as_ref();
        (parameter.site, slice.map(|slice| (slice.start, slice.end)))
    };
    let runs = early.chunk_by(|a, b| place(a) == place(b));
    let mut by_place: BTreeMap<_, Job> = BTreeMap::new();
    for index in late {
        by_place.entry(place(&index)).or_default().push(index);
    }
    let runs = runs.map(<[usize]>::to_vec).collect();
    (runs, by_place.into_values().collect())
}

/// By the number of a parameter: what its start value joins over all modules, in the order of the terms.
type Joined = BTreeMap<usize, Vec<Tensor>>;

/// Parameters whose start values join something: those of one statement, method and name together, in the
/// order of the model, and for every call of a module; as far as one of them has no value.
fn together(plan: &Plan, found: &[Option<Tensor>]) -> Vec<Job> {
    let joins = |index: usize| match &plan.parameters[index].init {
        Init::Computed(formula) => formula.everywhere().next().is_some(),
        Init::Constant(_) | Init::Random(_) => false,
    };
    let mut groups: BTreeMap<(usize, usize, usize), Job> = BTreeMap::new();
    for site in &plan.sites {
        for (place, method) in site.methods.iter().enumerate() {
            for (number, index) in method.parameters.iter().enumerate() {
                if joins(*index) {
                    let key = (site.statement, place, number);
                    groups.entry(key).or_default().push(*index);
                }
            }
        }
    }
    let groups = groups.into_values();
    groups
        .filter(|members| members.iter().any(|index| found[*index].is_none()))
        .collect()
}

/// Vectors one behind the other.
fn behind_each_other(parts: &[&Tensor]) -> Tensor {
    let raw: Vec<u8> = parts
        .iter()
        .filter_map(|part| part.raw())
        .flat_map(|raw| raw.to_vec())
        .collect();
    let elements = raw.len() / size_of::<f64>();
    Tensor::from_raw(DType::F64, &[elements as i64], raw)
}

/// What every job needs.
struct Work<'a> {
    /// Empty until everything that is joined is.
    joined: Joined,
    sources: Sources<'a>,
    plan: &'a Plan,
    modules: &'a Modules,
}

/// How a job is done.
type Make<'m> = dyn Fn(&Job, &mut Sink) -> Result<Made, Reported> + Sync + 'm;

/// A job that has come to its end, well or not.
struct Ended {
    made: Result<Made, Reported>,
    diagnostics: Vec<Diagnostic>,
}

impl Work<'_> {
    /// One job; `found` has what it reads of others.
    fn done(&self, job: &Job, found: &[Option<Tensor>], sink: &mut Sink) -> Result<Made, Reported> {
        let parameters = &self.plan.parameters;
        let Some(first) = job.first() else {
            return Ok(Made::new());
        };
        let site = &self.modules.sites[parameters[*first].site];
        let origin = Origin::new(site, self.sources);
        let mut made = Made::new();
        for index in job {
            let parameter = &parameters[*index];
            let joined = self.joined.get(index).map_or(&[][..], Vec::as_slice);
            let before = parameter.reads.iter().filter_map(|read| {
                let mut own = made.iter().filter(|(index, _)| index == read);
                own.next()
                    .map(|(_, tensor)| tensor)
                    .or(found[*read].as_ref())
            });
            let before: Vec<&Tensor> = before.collect();
            let tensor = origin.tensor(parameter, (&before, joined), sink)?;
            made.push((*index, tensor));
        }
        Ok(made)
    }

    /// What one parameter's module gives to what is joined.
    fn parts(&self, job: &Job, sink: &mut Sink) -> Result<Made, Reported> {
        let mut made = Made::new();
        for index in job {
            let parameter = &self.plan.parameters[*index];
            let site = &self.modules.sites[parameter.site];
            let parts = Origin::new(site, self.sources).parts(parameter, sink)?;
            made.extend(parts.into_iter().map(|part| (*index, part)));
        }
        Ok(made)
    }

    /// Joins what start values join over all modules.
    fn join(
        &mut self,
        found: &[Option<Tensor>],
        progress: &dyn Fn(usize, usize),
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        for members in together(self.plan, found) {
            let once: BTreeSet<usize> = members.iter().copied().collect();
            let jobs: Vec<Job> = once.into_iter().map(|index| vec![index]).collect();
            let parts = |job: &Job, sink: &mut Sink| self.parts(job, sink);
            let made = self.side_by_side(&jobs, &parts, progress, sink)?;
            let of = |member: usize| made.iter().filter(move |(index, _)| *index == member);
            let count = members.first().map_or(0, |first| of(*first).count());
            let joined: Vec<Tensor> = (0..count)
                .map(|number| {
                    let parts = members.iter().filter_map(|index| of(*index).nth(number));
                    behind_each_other(&parts.map(|(_, part)| part).collect::<Vec<_>>())
                })
                .collect();
            let all = members.iter().map(|index| (*index, joined.clone()));
            self.joined.extend(all.collect::<Vec<_>>());
        }
        Ok(())
    }

    fn ended(&self, job: &Job, make: &Make<'_>) -> Ended {
        let mut sink = Sink::new();
        let made = make(job, &mut sink);
        Ended {
            made,
            diagnostics: sink.diagnostics().to_vec(),
        }
    }

    /// All jobs; of several that fail the first one is told.
    fn side_by_side(
        &self,
        jobs: &[Job],
        make: &Make<'_>,
        progress: &dyn Fn(usize, usize),
        sink: &mut Sink,
    ) -> Result<Made, Reported> {
        let mut all = Made::new();
        for ended in self.run(jobs, make, progress) {
            for diagnostic in ended.diagnostics {
                match diagnostic.severity() {
                    Severity::Error => drop(sink.emit(diagnostic)),
                    Severity::Warning => sink.warn(diagnostic),
                }
            }
            all.extend(ended.made?);
        }
        Ok(all)
    }

    /// Jobs in their order, up to one that has failed.
    fn run(&self, jobs: &[Job], make: &Make<'_>, progress: &dyn Fn(usize, usize)) -> Vec<Ended> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (send, receive) = mpsc::channel();
        let worker = |send: mpsc::Sender<(usize, Ended)>| {
            // Jobs are taken in their order: those before one that fails are all done.
            while !failed.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(at) else { break };
                let one = self.ended(job, make);
                failed.fetch_or(one.made.is_err(), Ordering::Relaxed);
                // Whoever receives waits for every thread.
                let _ = send.send((at, one));
            }
        };
        let threads = self.threads(jobs);
        let mut ended: BTreeMap<usize, Ended> = BTreeMap::new();
        thread::scope(|scope| {
            for _ in 0..threads.unwrap_or(1) {
                let (send, worker) = (send.clone(), &worker);
                scope.spawn(move || worker(send));
            }
            drop(send);
            for (at, one) in receive {
                ended.insert(at, one);
                if threads.is_some() {
                    progress(ended.len(), jobs.len());
                }
            }
        });
        ended.into_values().collect()
    }

    /// How many jobs are done at a time; `None` where nothing is computed of weights, which takes no
    /// time.
    fn threads(&self, jobs: &[Job]) -> Option<usize> {
        let mut parameters = jobs.iter().flatten().map(|at| &self.plan.parameters[*at]);
        let is_slow = parameters.any(|p| matches!(p.init, Init::Computed(_)));
        let most = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        is_slow.then(|| most.min(jobs.len()))
    }
}
