//! Real namespaces: needs root, or a user namespace around it (`unshare -r`).

use netns::Namespace;

#[test]
fn a_namespace_is_separate_and_ends_with_its_last_descriptor() {
    let home = Namespace::of_this_thread().unwrap();
    let lab = Namespace::create().unwrap();
    assert_ne!(home.inode(), lab.inode());

    let inside = lab.run(|| Namespace::of_this_thread().unwrap().inode()).unwrap();
    assert_eq!(inside, lab.inode(), "work runs inside");
    let still = Namespace::of_this_thread().unwrap().inode();
    assert_eq!(still, home.inode(), "the caller stays where it was");

    let interfaces =
        lab.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
    let names: Vec<_> =
        interfaces.lines().skip(2).map(|l| l.split(':').next().unwrap().trim()).collect();
    assert_eq!(names, ["lo"]);
}

#[test]
fn one_inside_another_leads_back_step_by_step() {
    let inode = || Namespace::of_this_thread().unwrap().inode();
    let home = inode();
    let (outer, inner) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    outer
        .run(|| {
            assert_eq!(inner.run(inode).unwrap(), inner.inode());
            assert_eq!(inode(), outer.inode());
            Namespace::create().unwrap();
            assert_eq!(inode(), outer.inode());
        })
        .unwrap();
    assert_eq!(inode(), home);
    let unwound = std::thread::spawn(move || {
        let panics = std::panic::AssertUnwindSafe(|| outer.run(|| panic!("on purpose")));
        assert!(std::panic::catch_unwind(panics).is_err());
        inode()
    });
    assert_eq!(unwound.join().unwrap(), home);
}
