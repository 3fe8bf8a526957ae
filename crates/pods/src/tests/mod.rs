//! Golden lives of pods: each YAML file is a pod and a story of what happens, what is planned, what is reported.

mod properties;
mod story;

use story::Story;

macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            Story::parse(include_str!(concat!(stringify!($name), ".yaml"))).play();
        })*
    };
}

stories!(
    starts_at_once,
    crash_loop,
    crash_loop_goes_on_after_a_daemon_restart,
    image_pull_back_off,
    init_containers_and_sidecar,
    graceful_deletion,
    deletion_of_a_pod_that_never_started,
    kill_after_the_grace_period,
    liveness_restarts,
    startup_probe_comes_first,
    readiness_leaves_and_returns,
    completes,
    fails_for_good,
    failed_init_container,
    deadline,
    configuration_error,
    adopted_after_a_daemon_restart,
    lost_sandbox,
    lost_sandbox_before_its_containers,
    rebooted_node,
    post_start_hook_fails,
    pre_stop_and_sidecar_order,
    image_changed,
    removed_from_the_api,
);
