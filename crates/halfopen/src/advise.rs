//! `halfopen advise`: which options to choose, proven by trials of their worst cases.

use crate::batch::{self, Batch};
use crate::cli::AdviseArgs;
use crate::obstacle::FLOOR;
use crate::output::{self, Exit, Format};
use crate::session::Laboratory;
use crate::{conducted::Conducted, kernels};
use advice::{
    Advice, Busy, Demand, Detection, Ecosystem, Options, Path, Snippet, Survived, ecosystems,
    meets, worst_cases,
};
use anyhow::{Result, anyhow, bail, ensure};
use report::Clock;
use report::advice::{
    Proven, document, explained, explained_document, human, reviewed, reviewed_document,
};
use spec::Experiment;
use spec::sysctl::nearest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn run(arguments: &AdviseArgs) -> Exit {
    let path = match path(arguments) {
        Ok(path) => path,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    match (&arguments.explain, &arguments.review, arguments.detect) {
        (Some(settings), None, None) => explain(arguments, settings, &path),
        (None, Some(text), None) => review(arguments, text, &path),
        (None, None, Some(detect)) => advise(arguments, detect, path),
        _ => output::fail(
            Exit::USAGE,
            &anyhow!(
                "give one of --detect D (how soon a dead peer must be found), --explain SETTINGS (say what \
                 options do) and --review TEXT (check a connection string or configuration)"
            ),
        ),
    }
}

/// What is known of path and kernel.
fn path(arguments: &AdviseArgs) -> Result<Path> {
    let kernel = arguments.kernel.clone().unwrap_or_else(observe::clock::kernel_release);
    let mut numbers = kernel.split(['.', '-']).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("--kernel {kernel}: it is a version such as 6.12");
    };
    let (oldest, least) = FLOOR;
    ensure!(
        (major, minor) >= FLOOR,
        "Linux {kernel} is too old: --kernel takes a version from {oldest}.{least} on"
    );
    Ok(Path {
        rtt: arguments.rtt,
        forgets_after: arguments.behind.as_deref().map(behind).transpose()?,
        hz: arguments.hz.unwrap_or_else(observe::clock::hz),
        kernel: (major, minor),
    })
}

/// When middleboxes forget an idle flow, by their makers' documentation.
const MIDDLEBOXES: [(&str, u64); 5] = [
    ("aws-nlb", 350),
    ("aws-network-firewall", 350),
    ("azure", 240),
    ("ipvs", 900),
    ("conntrack", 432_000),
];

fn behind(text: &str) -> Result<Duration> {
    if let Some((_, seconds)) = MIDDLEBOXES.iter().find(|(name, _)| *name == text) {
        return Ok(Duration::from_secs(*seconds));
    }
    spec::duration::parse(text).map_err(|why| {
        let names: Vec<_> = MIDDLEBOXES.iter().map(|(name, _)| *name).collect();
        anyhow!("--behind {text}: {why}; or one of {}", names.join(", "))
    })
}

fn explain(arguments: &AdviseArgs, settings: &str, path: &Path) -> Exit {
    let options: Options = match settings.parse() {
        Ok(options) => options,
        Err(why) => return output::fail(Exit::USAGE, &anyhow!("--explain {settings}: {why}")),
    };
    let detection = Detection::by(&options, path);
    let survived = Survived::with(&options, &detection, path);
    match arguments.output.format {
        Format::Json => output::print(&explained_document(&options, &detection, &survived)),
        Format::Human | Format::Jsonl => {
            let colour = output::colour(&std::io::stdout());
            output::print(explained(&options, &detection, &survived, colour).as_bytes())
        }
    }
}

fn review(arguments: &AdviseArgs, text: &str, path: &Path) -> Exit {
    let readings = match advice::review(text, path) {
        Ok(readings) => readings,
        Err(why) => return output::fail(Exit::USAGE, &anyhow!("--review: {why}")),
    };
    match arguments.output.format {
        Format::Json => output::print(&reviewed_document(&readings)),
        Format::Human | Format::Jsonl => {
            let colour = output::colour(&std::io::stdout());
            output::print(reviewed(&readings, colour).as_bytes())
        }
    }
}

fn advise(arguments: &AdviseArgs, detect: Duration, path: Path) -> Exit {
    let ecosystems = match chosen(arguments.ecosystems.as_deref()) {
        Ok(ecosystems) => ecosystems,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    let busy = arguments.traffic.into();
    let demand = Demand { detect, survive: arguments.survive, busy, path };
    let advice = advice::advise(&demand);
    let written = |(id, ecosystem): (String, Ecosystem)| {
        let snippet = ecosystem.snippet(&advice)?;
        Some((id, (ecosystem, snippet)))
    };
    let written = ecosystems.into_iter().filter_map(written).collect();
    prove(arguments, &advice, &written).unwrap_or_else(|error| output::fail(Exit::INTERNAL, &error))
}

/// The ecosystems by their short names.
fn chosen(list: Option<&str>) -> Result<BTreeMap<String, Ecosystem>> {
    let mut all = ecosystems();
    let Some(list) = list else { return Ok(BTreeMap::new()) };
    if list == "all" {
        return Ok(all);
    }
    let mut chosen = BTreeMap::new();
    for name in list.split(',').map(str::trim) {
        let Some(ecosystem) = all.remove(name) else {
            let names: Vec<_> = all.keys().map(String::as_str).collect();
            let hint = nearest(name, names.iter().copied())
                .map_or_else(String::new, |near| format!("is it `{near}`? "));
            bail!("--for {name}: no such name: {hint}accepted are all, {}", names.join(", "));
        };
        chosen.insert(name.to_owned(), ecosystem);
    }
    Ok(chosen)
}

/// Says what to choose; then runs its worst cases.
fn prove(
    arguments: &AdviseArgs,
    advice: &Advice,
    written: &BTreeMap<String, (Ecosystem, Snippet)>,
) -> Result<Exit> {
    let is_json = arguments.output.format == Format::Json;
    let mut proven = Proven { advice, written, proof: None, not_proven: None };
    if !is_json {
        let colour = output::colour(&std::io::stdout());
        output::print(human(&proven, colour).as_bytes());
    }
    let mut exit = if advice.chosen.is_some() { Exit::AGREES } else { Exit::SKIPPED };
    let wanted =
        Some(to_prove(advice, written)).filter(|all| !all.is_empty() && !arguments.no_prove);
    let (mut run, mut not_proven) = (None, None);
    match wanted.map(|all| plan(&all, &advice.demand)) {
        None => {}
        Some(Err(why)) => {
            eprintln!("not proven: {why}");
            not_proven = Some(why);
        }
        Some(Ok(batch)) => {
            if !is_json {
                let clock = batch.clock;
                output::print(format!("\nThe worst cases, {clock} clock\n").as_bytes());
            }
            let conducted = conduct(arguments, batch)?;
            exit = exit.and(conducted.exit());
            if is_json {
                run = Some(conducted.into_run()?);
            } else {
                exit = exit.and(conducted.conclude());
            }
        }
    }
    if !is_json {
        return Ok(exit);
    }
    (proven.proof, proven.not_proven) = (run.as_ref(), not_proven.as_deref());
    Ok(exit.and(output::print(&document(&proven))))
}

/// The options that are advised, and what they come to in each ecosystem where sysctls do the rest, if
/// that is enough.
fn to_prove(advice: &Advice, written: &BTreeMap<String, (Ecosystem, Snippet)>) -> Vec<Options> {
    let chosen = advice.chosen.iter().map(|chosen| chosen.options.clone());
    let mut all: Vec<_> = chosen.collect();
    for options in written.values().filter_map(|(_, snippet)| snippet.options.as_ref()) {
        let is_new = !options.sysctl().is_empty() && !all.contains(options);
        if is_new && meets(&advice.demand, options) {
            all.push(options.clone());
        }
    }
    all
}

/// Trials of the worst cases: in virtual time where its kernel is there, else on the real clock.
fn plan(all: &[Options], demand: &Demand) -> Result<Batch, String> {
    let path = &demand.path;
    let cases = |options| worst_cases(demand, options).into_iter().map(move |case| (options, case));
    let experiments: Vec<Experiment> = all
        .iter()
        .flat_map(cases)
        .map(|(options, (case, require))| case.experiment(options, path, Some(require)))
        .collect::<Result<_, _>>()?;
    let simulated = if all.iter().any(|options| options.rto_max.is_some()) {
        Err("the virtual kernel has no TCP_RTO_MAX_MS".to_owned())
    } else {
        kernels::find(&kernels::with_hz(path.hz)).map(|_| ())
    };
    let clock = match simulated {
        Ok(()) => Clock::Virtual,
        Err(_) if path.hz == observe::clock::hz() => Clock::Real,
        Err(why) => return Err(format!("{why}; and this machine's kernel has another HZ")),
    };
    Ok(Batch {
        experiments,
        repeat: 1,
        phases: None,
        clock,
        kernel: kernels::with_hz(path.hz),
        jobs: None,
        samples: false,
        defaults: false,
    })
}

fn conduct(arguments: &AdviseArgs, batch: Batch) -> Result<Conducted> {
    let trials = match batch.prepare()? {
        Ok(trials) => trials,
        Err((trials, why)) => return Conducted::skipped(trials, arguments.output.format, &why),
    };
    if let Some(hint) = batch::hint(&trials) {
        eprintln!("{hint}");
    }
    let (laboratory, store) = Laboratory::open(trials, Some(&arguments.out))?;
    let mut conducted = laboratory.conduct(Arc::new(store), arguments.output.format)?;
    conducted.tell_missing();
    Ok(conducted)
}

impl From<crate::cli::TrafficName> for Busy {
    fn from(name: crate::cli::TrafficName) -> Self {
        match name {
            crate::cli::TrafficName::Idle => Self::Idle,
            crate::cli::TrafficName::Sending => Self::Sending,
            crate::cli::TrafficName::Any => Self::Any,
        }
    }
}
