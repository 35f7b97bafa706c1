"""The life cycle of a pod's containers: start, probes, hooks, restarts, termination."""

from __future__ import annotations

from integration.engines.conftest import Seen
from integration.engines.kubernetes.cluster import Cluster, Json
from integration.engines.kubernetes.pods import PODS, Pods, container

LABEL = Cluster.label


def test_run_to_the_end(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container("echo out; echo err >&2; exit 7")).ended("Failed")
    end = pod.terminated()
    seen(phase=pod.phase, exit_code=end["exitCode"], reason=end["reason"], log=sorted(pod.log()))
    assert (end["exitCode"], end["reason"], sorted(pod.log())) == (7, "Error", ["err", "out"])


def test_command_not_found(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container() | {"command": ["/nonexistent"]}).ended("Failed")
    end = pod.terminated()
    missing = "no such file or directory" in end["message"]
    seen(exit_code=end["exitCode"], reason=end["reason"], says_why=missing)
    assert (end["exitCode"], end["reason"]) == (128, "StartError") and missing, end


def test_init_containers_and_a_sidecar(pods: Pods, seen: Seen) -> None:
    share: Json = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    side = 'trap "echo side-end >>/v/log; exit 0" TERM; echo side >>/v/log; while :; do sleep 0.1; done'
    pod = pods.create(
        container("while ! grep side /v/log; do sleep 0.1; done; echo main >>/v/log; cat /v/log", **share),
        initContainers=[
            container("echo first >>/v/log", "first", **share),
            container(side, "side", restartPolicy="Always", **share),
            container("while ! grep side /v/log; do sleep 0.1; done; echo last >>/v/log", "last", **share),
        ],
        volumes=[{"name": "v", "emptyDir": {}}],
    ).ended()
    codes = [pod.terminated(name, "initContainerStatuses")["exitCode"] for name in ("first", "side", "last")]
    order = pod.log()[-4:]
    seen(order=order, exit_codes=codes)
    assert (order, codes) == (["first", "side", "last", "main"], [0, 0, 0])


def test_failing_init_container(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container("echo never"), initContainers=[container("exit 3", "first")]).ended("Failed")
    code = pod.terminated("first", "initContainerStatuses")["exitCode"]
    waiting = pod.status()["state"].get("waiting", {}).get("reason")
    seen(exit_code=code, main=waiting)
    assert (code, waiting) == (3, "PodInitializing")


def test_probes(pods: Pods, seen: Seen) -> None:
    often = {"periodSeconds": 1, "timeoutSeconds": 5}
    pod = pods.create(
        container(
            "mkdir /w; echo hello >/w/index.html; sleep 1; touch /started; exec httpd -f -p 8080 -h /w",
            startupProbe={"exec": {"command": ["test", "-e", "/started"]}, "failureThreshold": 30} | often,
            readinessProbe={"httpGet": {"path": "/", "port": 8080}} | often,
            livenessProbe={"tcpSocket": {"port": 8080}} | often,
        )
    ).ready()
    pod.run("rm /w/index.html")
    pod.wait(lambda: not pod.is_ready(), "to be not ready")
    seen(ready_when_served=True, then_restarts=pod.status()["restartCount"], started=pod.status()["started"])
    assert pod.status()["restartCount"] == 0


def test_liveness_probe_that_fails(pods: Pods, seen: Seen) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "/bad"]}, "periodSeconds": 1, "failureThreshold": 1}
    pod = pods.create(container(livenessProbe=probe), restartPolicy="Always").ready()
    pod.run("touch /bad")
    pod.wait(lambda: pod.status()["restartCount"] > 0, "to be restarted")
    pod.ready()
    last = pod.status()["lastState"]["terminated"]
    seen(restarts=pod.status()["restartCount"], exit_code=last["exitCode"])
    assert (pod.status()["restartCount"], last["exitCode"]) == (1, 0)


def test_probe_that_takes_too_long(pods: Pods, seen: Seen) -> None:
    probe = {"exec": {"command": ["sleep", "60"]}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}
    pod = pods.create(container(readinessProbe=probe))
    pod.wait(lambda: "timed out" in pod.explain(), "an event about the probe")
    seen(ready=pod.is_ready())
    assert not pod.is_ready()


def test_lifecycle_hooks(pods: Pods, seen: Seen) -> None:
    place: Json = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    hooks: Json = {
        "postStart": {"exec": {"command": ["/bin/sh", "-c", "echo post-start >>/v/log"]}},
        "preStop": {"exec": {"command": ["/bin/sh", "-c", "echo pre-stop >>/v/log"]}},
    }
    main = 'trap "echo term >>/v/log; exit 0" TERM; while :; do sleep 0.1; done'
    folder = pods.folder()
    volumes = [{"name": "v", "hostPath": {"path": str(folder)}}]
    pod = pods.create(container(main, lifecycle=hooks, **place), volumes=volumes).ready()
    pod.delete(20)
    pod.wait_gone()
    order = (folder / "log").read_text().split()
    seen(order=order)
    assert order == ["post-start", "pre-stop", "term"]


def test_post_start_hook_that_fails(pods: Pods, seen: Seen) -> None:
    hooks: Json = {"postStart": {"exec": {"command": ["/bin/sh", "-c", "echo why; exit 4"]}}}
    pod = pods.create(container(lifecycle=hooks))
    pod.terminated()
    event = "FailedPostStartHook" in pod.explain()
    seen(phase=pod.phase, exit_code=pod.terminated()["exitCode"], event=event)
    assert event


def test_crash_loop_and_termination_message(pods: Pods, seen: Seen) -> None:
    main = "echo cause >/dev/termination-log; exit 5"
    pod = pods.create(container(main), restartPolicy="Always")
    pod.wait(
        lambda: pod.status().get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff", "to back off"
    )
    last = pod.status()["lastState"]["terminated"]
    seen(exit_code=last["exitCode"], message=last["message"].strip())
    assert (last["exitCode"], last["message"].strip()) == (5, "cause")


def test_termination_message_from_the_log(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container("echo the end; exit 1", terminationMessagePolicy="FallbackToLogsOnError")).ended(
        "Failed"
    )
    seen(message=pod.terminated()["message"].strip())
    assert pod.terminated()["message"].strip() == "the end"


def test_restart_on_failure(pods: Pods, seen: Seen) -> None:
    main = "echo run >>/v/log; [ $(wc -l </v/log) = 2 ]"
    pod = pods.create(
        container(main, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        restartPolicy="OnFailure",
        volumes=[{"name": "v", "emptyDir": {}}],
    ).ended()
    seen(phase=pod.phase, restarts=pod.status()["restartCount"])
    assert pod.status()["restartCount"] == 1


def test_graceful_deletion(pods: Pods, seen: Seen) -> None:
    folder = pods.folder()
    main = 'trap "echo term >/v/log; sleep 1; echo end >>/v/log; exit 0" TERM; while :; do sleep 0.1; done'
    pod = pods.create(
        container(main, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "hostPath": {"path": str(folder)}}],
    ).ready()
    pod.delete(20)
    pod.wait_gone()
    seen(order=(folder / "log").read_text().split())
    assert (folder / "log").read_text().split() == ["term", "end"]


def test_deletion_of_a_container_that_does_not_end(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container('trap "" TERM; while :; do sleep 0.1; done')).ready()
    pod.delete(1)
    pod.wait_gone()
    seen(gone=pod.is_gone())


def test_stop_signal(pods: Pods, seen: Seen) -> None:
    folder = pods.folder()
    main = 'trap "echo usr1 >/v/log; exit 0" USR1; while :; do sleep 0.1; done'
    pod = pods.create(
        container(main, volumeMounts=[{"name": "v", "mountPath": "/v"}], lifecycle={"stopSignal": "SIGUSR1"}),
        os={"name": "linux"},
        volumes=[{"name": "v", "hostPath": {"path": str(folder)}}],
    ).ready()
    pod.delete(10)
    pod.wait_gone()
    text = (folder / "log").read_text().strip()
    seen(signal=text)
    assert text == "usr1"


def test_deadline(pods: Pods, seen: Seen) -> None:
    pod = pods.create(activeDeadlineSeconds=2).ended("Failed")
    seen(reason=pod.read()["status"]["reason"])
    assert pod.read()["status"]["reason"] == "DeadlineExceeded"


def test_environment_arguments_and_directory(pods: Pods, seen: Seen) -> None:
    names: Json = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}], "workingDir": "/tmp"}
    field = {"fieldRef": {"fieldPath": "status.podIP"}}
    names["env"].append({"name": "IP", "valueFrom": field})
    body = container() | names | {"command": ["/bin/sh", "-c", 'echo $B "$@"; pwd; echo $IP'], "args": ["x", "$(A)"]}
    pod = pods.create(body).ended()
    lines = pod.log()
    seen(log=lines[:2], address_is_the_pods=lines[2] == pod.read()["status"]["podIP"])
    assert lines == ["12 1", "/tmp", pod.read()["status"]["podIP"]], lines


def test_terminal(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container("tty; test -t 0 && test -t 1 && echo terminal", tty=True, stdin=True)).ended()
    lines = [line.strip() for line in pod.log()]
    seen(log=lines)
    assert lines == ["/dev/pts/0", "terminal"]


def test_ephemeral_container_with_a_target(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    extra = container("grep -c 'echo started' /proc/1/cmdline; ls /proc/1/root/bin/busybox; sleep 60", "debug")
    body = {"spec": {"ephemeralContainers": [extra | {"targetContainerName": "c"}]}}
    kind = "application/strategic-merge-patch+json"
    pod.cluster.api("PATCH", f"{PODS}/{pod.name}/ephemeralcontainers", body, kind)
    pod.wait(lambda: pod.status("debug", "ephemeralContainerStatuses").get("state", {}).get("running"), "to debug")
    pod.wait(lambda: len(pod.log("debug")) == 2, "the ephemeral container's output")
    seen(log=pod.log("debug"), exec=pod.run("echo here", "debug"))
    assert pod.log("debug") == ["1", "/proc/1/root/bin/busybox"]


def test_debug_with_a_copy_of_the_pod(pods: Pods, seen: Seen) -> None:
    pod = pods.create(shareProcessNamespace=True).ready()
    words = ["debug", pod.name, "--image=registry.test/bb:1", "--image-pull-policy=Never", "--target=c"]
    done = pod.cluster.kubectl(*words, "--profile=general", "-c", "tool", "--", "/bin/sh", "-c", "echo from the tool")
    assert done.rc == 0, done
    end = pod.terminated("tool", "ephemeralContainerStatuses")
    seen(exit_code=end["exitCode"], log=pod.log("tool"))
    assert (end["exitCode"], pod.log("tool")) == (0, ["from the tool"])
