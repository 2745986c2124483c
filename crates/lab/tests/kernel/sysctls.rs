//! Sysctls of a namespace.

use lab::sysctl::{self, Error};
use netns::Namespace;
use spec::sysctl::Sysctls;

fn one(name: &str, value: &str) -> Sysctls {
    Sysctls::from([(name.to_owned(), value.to_owned())])
}

#[test]
fn a_sysctl_is_the_namespaces_own() {
    let (here, there) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    sysctl::apply(&here, &one("tcp_retries2", "5")).unwrap();
    let value = |namespace| {
        sysctl::read_tcp(namespace, [&"tcp_retries2".to_owned()]).unwrap()["tcp_retries2"].clone()
    };
    assert_eq!(value(&here), "5");
    assert_eq!(value(&there), "15");
}

#[test]
fn names_with_a_tree_and_values_with_spaces_are_written() {
    let namespace = Namespace::create().unwrap();
    sysctl::apply(&namespace, &one("conf.lo.rp_filter", "2")).unwrap();
    sysctl::apply(&namespace, &one("tcp_rmem", "4096 65536 1000000")).unwrap();
    assert_eq!(
        sysctl::read_tcp(&namespace, [&"tcp_rmem".to_owned()]).unwrap()["tcp_rmem"],
        "4096 65536 1000000"
    );
}

#[test]
fn facts_leave_out_what_belongs_to_the_machine() {
    let tcp = sysctl::read_tcp(&Namespace::create().unwrap(), []).unwrap();
    assert!(tcp.contains_key("tcp_keepalive_time"), "{tcp:?}");
    for name in ["tcp_mem", "tcp_fastopen_key", "tcp_available_congestion_control"] {
        assert!(!tcp.contains_key(name), "{name}");
    }
}

#[test]
fn what_cannot_be_set_says_why() {
    let namespace = Namespace::create().unwrap();
    assert!(sysctl::exists(&namespace, "tcp_retries2").unwrap());
    assert!(!sysctl::exists(&namespace, "tcp_no_such_thing").unwrap());

    let error = sysctl::apply(&namespace, &one("conf.nosuch.rp_filter", "1")).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    // Names that lead elsewhere, by whoever gives the orders.
    let elsewhere =
        ["/proc/sys/vm/swappiness", "/../../vm/swappiness", "conf./../../vm.swappiness"];
    for name in elsewhere.into_iter().chain(["tcp_no_such_thing", "tcp_mem", ""]) {
        let error = sysctl::apply(&namespace, &one(name, "1")).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{name}: {error}");
    }
    let error = sysctl::apply(&namespace, &one("tcp_retries2", "many")).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    let error = sysctl::apply(&namespace, &one("tcp_congestion_control", "no-such")).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(error.to_string().contains("net.ipv4.tcp_congestion_control=no-such"), "{error}");
}
