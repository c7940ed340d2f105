//! Profiles where the kernel knows none. What they are where it does is seen in the virtual machine
//! (`scripts/vm/apparmor-rows.sh`).

use integration_tests::pool::lease;
use serde_json::json;

use crate::{in_container, sleeper, with};

/// Judged on hosts without AppArmor, as the build hosts are; on others the start is refused.
#[test]
fn a_profile_is_passed_over_where_the_kernel_knows_none() {
    let known = std::path::Path::new("/sys/kernel/security/apparmor").exists();
    let stack = lease();
    let api = stack.api();
    let told = api.get("/info").expect(200).json()["SecurityOptions"].to_string();
    assert_eq!(told.contains("name=apparmor"), known, "{told}");
    let security = json!({"HostConfig": {"SecurityOpt": ["apparmor=nobody-has-it"]}});
    let id = api.create("named", &with(sleeper(), security));
    // Taken from the request, whatever the kernel knows.
    assert_eq!(api.inspect(&id)["AppArmorProfile"], "nobody-has-it");
    let started = api.post(&format!("/containers/{id}/start"));
    if known {
        assert!(started.expect(400).message().contains("apparmor"));
        return;
    }
    started.expect(204);
    let inspect = api.inspect(&id);
    assert_eq!(inspect["AppArmorProfile"], "");
    assert_eq!(inspect["HostConfig"]["SecurityOpt"], json!(["apparmor=nobody-has-it"]));
    assert_eq!(in_container(&stack, "named", "echo entered"), "entered");
    let id = api.run("plain", &sleeper());
    assert_eq!(api.inspect(&id)["AppArmorProfile"], "");
}
