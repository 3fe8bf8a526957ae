"""What programs do with the Python client, against the cluster of $KUBECONFIG."""

import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

NS = "lab"
IMAGE = "coracle.local/busybox:1.0"

config.load_kube_config()
api = client.ApiClient()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def refused(status, reason, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert (error.status, error.reason) == (status, reason), error
        return error.body
    raise AssertionError(f"accepted: {args}")


def until(is_so):
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def config_maps():
    made = core.create_namespaced_config_map(
        NS, client.V1ConfigMap(metadata={"name": "c", "labels": {"a": "b"}}, data={"k": "v"})
    )
    assert made.metadata.uid and made.metadata.creation_timestamp.tzinfo
    core.patch_namespaced_config_map("c", NS, {"data": {"k": None, "x": "y"}})
    made = core.patch_namespaced_config_map("c", NS, [{"op": "add", "path": "/data/j", "value": "1"}])
    assert made.data == {"j": "1", "x": "y"}, made.data
    made.data["z"] = "2"
    made = core.replace_namespaced_config_map("c", NS, made)
    made.metadata.resource_version = "1"
    body = refused(409, "Conflict", core.replace_namespaced_config_map, "c", NS, made)
    assert "the object has been modified" in body, body
    body = refused(404, "Not Found", core.read_namespaced_config_map, "missing", NS)
    assert "not found" in body, body
    bad = client.V1ConfigMap(metadata={"name": "BAD"})
    assert "metadata.name" in refused(422, "Unprocessable Entity", core.create_namespaced_config_map, NS, bad)

    names, token = [], None
    while token != "":
        page = core.list_config_map_for_all_namespaces(limit=1, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert "c" in names and len(names) > 3, names
    core.delete_collection_namespaced_config_map(NS, label_selector="a=b")
    left = [item.metadata.name for item in core.list_namespaced_config_map(NS).items]
    assert "c" not in left, left


def deployment():
    container = client.V1Container(
        name="c",
        image=IMAGE,
        command=["sh", "-c", "echo up; mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www"],
        ports=[client.V1ContainerPort(container_port=80, name="http")],
    )
    template = client.V1PodTemplateSpec(
        metadata={"labels": {"app": "d"}},
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
    )
    spec = client.V1DeploymentSpec(replicas=2, selector={"matchLabels": {"app": "d"}}, template=template)
    apps.create_namespaced_deployment(NS, client.V1Deployment(metadata={"name": "d"}, spec=spec))
    events = watch.Watch()
    for event in events.stream(apps.list_namespaced_deployment, NS, timeout_seconds=60):
        if event["object"].status.ready_replicas == 2:
            events.stop()
    assert apps.read_namespaced_deployment("d", NS).status.ready_replicas == 2
    assert apps.read_namespaced_deployment_scale("d", NS).status.selector == "app=d"

    pod = core.list_namespaced_pod(NS, label_selector="app=d").items[0].metadata.name
    log = core.read_namespaced_pod_log(pod, NS, _preload_content=False).data
    assert log == b"up\n", log
    out = stream(
        core.connect_get_namespaced_pod_exec, pod, NS, command=["echo", "hi"], stdout=True, stderr=True,
        stdin=False, tty=False,
    )
    assert out == "hi\n", out
    shell = stream(
        core.connect_get_namespaced_pod_exec, pod, NS, command=["sh", "-c", "read x; echo got $x; exit 3"],
        stdout=True, stderr=True, stdin=True, tty=False, _preload_content=False,
    )
    shell.write_stdin("it\n")
    shell.run_forever(timeout=30)
    assert (shell.read_stdout(), shell.returncode) == ("got it\n", 3)
    forward = portforward(core.connect_get_namespaced_pod_portforward, pod, NS, ports="80")
    socket = forward.socket(80)
    socket.setblocking(True)
    socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while piece := socket.recv(1024):
        answer += piece
    assert b" 200 OK" in answer and answer.endswith(b"page\n"), (answer, forward.error(80))

    apps.patch_namespaced_deployment_scale("d", NS, {"spec": {"replicas": 1}})
    eviction = client.V1Eviction(metadata={"name": pod})
    core.create_namespaced_pod_eviction(pod, NS, eviction)
    apps.delete_namespaced_deployment("d", NS, propagation_policy="Foreground")
    events = watch.Watch()
    for event in events.stream(apps.list_namespaced_deployment, NS, timeout_seconds=60):
        if event["type"] == "DELETED":
            events.stop()
    # The replacement of the evicted Pod may have been made while its owner went: it is collected after it.
    until(lambda: core.list_namespaced_pod(NS, label_selector="app=d").items == [])


def identities():
    spec = client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)
    token = core.create_namespaced_service_account_token(
        "default", NS, client.AuthenticationV1TokenRequest(spec=spec)
    ).status.token
    own = client.Configuration.get_default_copy()
    own.cert_file = own.key_file = None
    own.api_key = {"authorization": f"Bearer {token}"}
    body = refused(403, "Forbidden", client.CoreV1Api(client.ApiClient(own)).list_namespaced_pod, NS)
    assert f'User \\"system:serviceaccount:{NS}:default\\" cannot list resource \\"pods\\"' in body, body


def discovered():
    dynamic_client = dynamic.DynamicClient(api)
    pods = dynamic_client.resources.get(api_version="v1", kind="Pod")
    assert pods.namespaced and {"exec", "log", "status"} <= set(pods.subresources)
    kinds = {resource.kind for resource in dynamic_client.resources.search(group="apps")}
    assert {"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ControllerRevision"} <= kinds, kinds
    maps = dynamic_client.resources.get(api_version="v1", kind="ConfigMap")
    maps.create(body={"kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"a": "b"}}, namespace=NS)
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"c": "d"}}
    maps.server_side_apply(body=applied, name="dyn", namespace=NS, field_manager="test")
    done = maps.patch(
        body={"data": {"a": "x"}}, name="dyn", namespace=NS, content_type="application/merge-patch+json"
    )
    assert done.data.to_dict() == {"a": "x", "c": "d"}
    assert "test" in [fields.manager for fields in done.metadata.managedFields]
    seen = [event["object"].metadata.name for event in maps.watch(namespace=NS, resource_version=0, timeout=1)]
    assert "dyn" in seen, seen


core.create_namespace(client.V1Namespace(metadata={"name": NS}))
assert client.VersionApi().get_code().minor == "36"
accounts = watch.Watch()
for event in accounts.stream(core.list_namespaced_service_account, NS, timeout_seconds=60):
    accounts.stop()
config_maps()
deployment()
identities()
discovered()
core.delete_namespace(NS)
gone = watch.Watch()
for event in gone.stream(core.list_namespace, timeout_seconds=60):
    if event["type"] == "DELETED" and event["object"].metadata.name == NS:
        gone.stop()
refused(404, "Not Found", core.read_namespace, NS)
