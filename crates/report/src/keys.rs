//! The keys of settings: `halfopen keys` and `halfopen explain`, made from the table that reads them.

use crate::human::{label, table, trimmed};
use crate::json::pretty;
use serde::Serialize;
use spec::sequence::of_further;
use spec::settings::{FAMILIES, Family, find, settings, unknown};
use spec::{relevance, sysctl};
use std::fmt::Write;
use verdict::claims::{ARTICLE, Claim};

/// A key, and what there is to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The key, as in `--set KEY=VALUE`; `NAME` stands for any name.
    pub key: String,
    /// What it is.
    pub about: String,
    /// What it accepts.
    pub accepts: String,
    /// Its value where nothing sets it.
    pub default: Option<String>,
    /// A value to try.
    pub example: String,
    /// What it needs to matter, each after "matters only with".
    pub needs: Vec<&'static str>,
    /// Whether it stands in files only, and not after `--set`.
    pub only_in_files: bool,
}

/// Every key.
pub fn all() -> Vec<Key> {
    let own = settings().map(|setting| Key {
        key: setting.key.into(),
        about: setting.about.into(),
        accepts: setting.accepts.into(),
        default: setting.default.map(Into::into),
        example: setting.example.into(),
        needs: relevance::needs(setting.key).map(|need| need.with).collect(),
        only_in_files: false,
    });
    let families = FAMILIES.iter().map(|family| of_family(family, "NAME"));
    own.chain(further()).chain(families).chain(only_in_files()).collect()
}

/// One key.
///
/// # Errors
/// A sentence: there is none, with the nearest; or there is no such sysctl.
pub fn explain(key: &str) -> Result<Key, String> {
    let known = all().into_iter().find(|known| known.key == key);
    if let Some((_, first)) = of_further(key).filter(|_| find(key).is_some()) {
        return explain(&first).map(|first| Key { key: key.into(), ..first });
    }
    match (known, Family::of(key)) {
        (Some(known), _) => Ok(known),
        (None, Some((family, name))) if family.is_sysctl => {
            Ok(Key { accepts: sysctl::accepts(name)?, ..of_family(family, name) })
        }
        (None, Some((family, name))) => Ok(of_family(family, name)),
        (None, None) => Err(unknown(key)),
    }
}

fn further() -> impl Iterator<Item = Key> {
    std::iter::once(Key {
        key: "fault.2.KEY".into(),
        about: "The key `fault.KEY` of a second fault, `fault.3.KEY` of a third, up to `fault.9.KEY`: in a file, further tables `[[fault]]`. Each comes `fault.2.after` after the beginning of the one before it; that one is over by then, or lasts until then if it says no `duration`. `process-crash` may come while the path is away (`flap`, `blackhole`), and leaves it so.".into(),
        accepts: "what `fault.KEY` accepts".into(),
        default: None,
        example: "fault.2.kind=process-crash".into(),
        needs: Vec::new(),
        only_in_files: false,
    })
}

fn of_family(family: &Family, name: &str) -> Key {
    let (of_example, value) = family.example.split_once('=').unwrap_or_default();
    let is_example = of_example.strip_prefix(family.prefix) == Some(name);
    Key {
        key: format!("{}{name}", family.prefix),
        about: family.about.replace("NAME", name),
        accepts: if family.is_sysctl { "what the kernel accepts" } else { "a text" }.into(),
        default: family.is_sysctl.then(|| "the kernel's".into()),
        example: if is_example { value.into() } else { family.example.into() },
        needs: relevance::needs(family.prefix).map(|need| need.with).collect(),
        only_in_files: false,
    }
}

fn only_in_files() -> impl Iterator<Item = Key> {
    [
        (
            "question",
            "The question that the experiment asks, shown in reports.",
            "a text of one line",
        ),
        ("claims", "The ids of the claims that it tests.", "a list, such as `[\"A1\"]`"),
    ]
    .into_iter()
    .map(|(key, about, accepts)| Key {
        key: key.into(),
        about: about.into(),
        accepts: accepts.into(),
        default: None,
        example: if key == "claims" { "[\"A1\"]" } else { "When does the client find out?" }.into(),
        needs: Vec::new(),
        only_in_files: true,
    })
}

/// `halfopen keys` for a person.
pub fn terminal(keys: &[Key]) -> String {
    let mut table = table(["key", "default", "what it is"]);
    for key in keys {
        table.add_row([&key.key, key.default.as_deref().unwrap_or("–"), &key.about]);
    }
    let mut text = trimmed(&table);
    text += "`halfopen explain KEY` says what a key accepts, when it matters, and an example\n";
    text
}

/// `halfopen explain KEY` for a person.
pub fn explained(key: &Key, colour: bool) -> String {
    let mut text = format!("{}\n", key.key);
    let mut say = |name: &str, what: &str| {
        writeln!(text, "{}  {what}", label(name, colour)).expect("a String takes all");
    };
    say("", &key.about);
    say("accepts", &key.accepts);
    for (value, about) in meanings(&key.key) {
        say("", &format!("{value:<15}  {about}"));
    }
    if let Some(default) = &key.default {
        say("default", default);
    }
    for need in &key.needs {
        say("matters", &format!("only with {need}"));
    }
    let Key { key, example, only_in_files, .. } = key;
    let (key, value) = example.split_once('=').unwrap_or((key, example));
    if !only_in_files {
        say("example", &format!("--set '{key}={value}'"));
    }
    let bare =
        value.starts_with('[') || value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok();
    let value = if bare { value.to_owned() } else { format!("\"{value}\"") };
    say("in a file", &format!("{key} = {value}"));
    text
}

/// The values of a key that is a choice, and what each means.
fn meanings(key: &str) -> Vec<(&'static str, &'static str)> {
    macro_rules! of {
        ($choice:ident) => {
            spec::$choice::ALL.iter().map(|value| (value.name(), value.about())).collect()
        };
    }
    let first = of_further(key).map_or_else(|| key.to_owned(), |(_, first)| first);
    match first.as_str() {
        "topology" => of!(Topology),
        "neighbour" => of!(Neighbour),
        "client.traffic" | "server.traffic" => of!(Traffic),
        "fault.kind" => of!(FaultKind),
        "fault.reject" => of!(Reject),
        _ => Vec::new(),
    }
}

/// `halfopen explain ID` of a claim, for a person, with the experiments that test it.
pub fn claim(claim: &Claim, tested_by: &[&str], colour: bool) -> String {
    let source = if claim.is_of_the_article() { ARTICLE } else { &claim.source };
    let mut text = format!("{}\n", claim.id);
    let tested_by = tested_by.join(", ");
    let lines = [("claim", claim.says.as_str()), ("source", source), ("tested by", &tested_by)];
    for (name, what) in lines.into_iter().filter(|(_, what)| !what.is_empty()) {
        writeln!(text, "{}  {what}", label(name, colour)).expect("a String takes all");
    }
    text
}

/// The same for programs: `halfopen/claim/1`.
pub fn claim_document(claim: &Claim) -> Vec<u8> {
    let Claim { id, says, source, .. } = claim;
    pretty(&serde_json::json!({
        "schema": "halfopen/claim/1", "id": id, "says": says, "source": source
    }))
}

/// Keys for programs: `halfopen/keys/1`.
pub fn document(keys: &[Key]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        schema: &'static str,
        keys: &'a [Key],
    }
    pretty(&Document { schema: "halfopen/keys/1", keys })
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::settings::find;

    #[test]
    fn every_key_is_explained_by_itself() {
        let mut seen = Vec::new();
        for key in all() {
            assert_eq!(explain(&key.key), Ok(key.clone()));
            assert!(!seen.contains(&key.key), "{}", key.key);
            seen.push(key.key);
        }
        assert!(settings().all(|setting| find(setting.key).is_some()));
    }

    #[test]
    fn what_is_explained() {
        let told: Vec<_> = ["client.keepalive.idle", "fault.kind", "sysctl.tcp_retries2", "claims"]
            .map(|key| explained(&explain(key).unwrap(), false))
            .into();
        insta::assert_snapshot!(told.join("\n"));
        assert!(explain("client.keepalive").unwrap_err().contains("client.keepalive.enabled"));
        assert!(explain("sysctl.tcp_retires2").unwrap_err().contains("tcp_retries2"));
        assert!(explain("nonsense.at.all").is_err());
        assert_eq!(explain("server.env.A").unwrap().needs, ["a command as its host's program"]);
    }
}
