use super::*;

#[test]
fn each_missing_capability_is_named() {
    assert!(missing(|_| true).is_empty());
    for (name, number) in NEEDED {
        assert_eq!(missing(|capability| capability != c_ulong::from(number)), [name]);
    }
    let error = KvmError::Missing { missing: missing(|capability| capability > 100) };
    let text = error.to_string();
    assert!(text.starts_with("this KVM lacks KVM_CAP_USER_MEMORY, KVM_CAP_EXT_CPUID"), "{text}");
    assert!(!text.contains("SPLIT_IRQCHIP"), "{text}");
}

#[test]
fn what_is_not_kvm_is_refused_by_name() {
    let text = |path: &str| open(Path::new(path)).map(|_| ()).unwrap_err().to_string();
    assert!(text("/nonexistent/kvm").starts_with("no KVM at /nonexistent/kvm: load the module"));
    assert!(text("/dev/null").starts_with("/dev/null does not speak version 12"), "{}", text("/dev/null"));
    assert_eq!(text("/"), "cannot open /");
    assert_eq!(text("a\0b"), "cannot open a\0b");
}
