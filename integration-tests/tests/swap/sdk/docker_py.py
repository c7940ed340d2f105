"""Drives an engine with docker-py: what the rows of the command line see, through the SDK."""

import io
import os
import sys
import tarfile

import docker


def is_equal(found, wanted):
    assert found == wanted, f"{found!r}, not {wanted!r}"


def run(client):
    is_equal(client.containers.run("busybox", "echo hi", remove=True), b"hi\n")
    both = ["sh", "-c", "echo out; echo err >&2"]
    is_equal(client.containers.run("busybox", both, remove=True, stderr=True, stdout=False), b"err\n")
    try:
        client.containers.run("busybox", "sh -c 'echo why >&2; exit 7'", remove=True)
        raise AssertionError("an exit code of 7 is an error")
    except docker.errors.ContainerError as error:
        is_equal((error.exit_status, error.stderr), (7, b"why\n"))
    try:
        client.containers.create("nothing/there:1")
        raise AssertionError("there is no such image")
    except docker.errors.ImageNotFound as error:
        is_equal(error.response.status_code, 404)


def lifecycle(client):
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    container = client.containers.run(
        "busybox", ["sh", "-c", script], detach=True, name="py", labels={"by": "docker-py"},
        environment={"WORD": "value"}, volumes={"pyvolume": {"bind": "/data", "mode": "rw"}},
        mem_limit="64m",
    )
    lines = container.logs(stream=True, follow=True)
    is_equal(next(lines), b"ready\n")
    is_equal([one.name for one in client.containers.list(filters={"label": "by=docker-py"})], ["py"])
    container.reload()
    is_equal(container.status, "running")
    is_equal(container.attrs["HostConfig"]["Memory"], 64 << 20)
    code, output = container.exec_run(["sh", "-c", "echo $WORD; echo err >&2; exit 3"], demux=True)
    is_equal((code, output), (3, (b"value\n", b"err\n")))
    socket = container.exec_run("cat", stdin=True, socket=True).output
    socket._sock.sendall(b"over\n")
    header = socket.read(8)
    is_equal((header[0], socket.read(int.from_bytes(header[4:], "big"))), (1, b"over\n"))
    socket._sock.close()
    is_equal(container.top()["Titles"][0] in ("UID", "PID"), True)
    container.pause()
    container.reload()
    is_equal(container.status, "paused")
    container.unpause()
    container.rename("py2")
    container.stop()
    is_equal(container.wait()["StatusCode"], 5)
    is_equal(b"".join(lines), b"")
    is_equal(container.logs(), b"ready\n")
    container.start()
    container.kill()
    is_equal(container.wait()["StatusCode"], 137)
    container.remove()
    client.volumes.get("pyvolume").remove()
    is_equal(client.containers.list(all=True), [])


def attach(client):
    container = client.containers.create("busybox", "cat", stdin_open=True)
    socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    socket._sock.sendall(b"typed\n")
    header = socket.read(8)
    is_equal((header[0], socket.read(int.from_bytes(header[4:], "big"))), (1, b"typed\n"))
    container.remove(force=True)
    socket.close()


def pull(client, name):
    is_equal(client.images.pull(name).tags, [name])
    is_equal(name in [tag for image in client.images.list() for tag in image.tags], True)
    is_equal(client.containers.run(name, remove=True), b"from the registry\n")
    client.images.remove(name)
    try:
        client.images.pull(name + "-not")
        raise AssertionError("there is no such image")
    except docker.errors.NotFound as error:
        is_equal(error.response.status_code, 404)


def images(client):
    image = client.images.get("busybox")
    image.tag("pytag", "1")
    is_equal("pytag:1" in client.images.get("pytag:1").tags, True)
    client.images.remove("pytag:1")
    try:
        client.images.get("pytag:1")
        raise AssertionError("the tag is gone")
    except docker.errors.ImageNotFound:
        pass
    is_equal(len(image.history()) >= 1, True)


def events(client):
    stream = client.events(decode=True, filters={"type": "container"})
    container = client.containers.run("busybox", "true", detach=True)
    seen = [next(stream)["Action"] for _ in range(3)]
    is_equal(seen, ["create", "start", "die"])
    stream.close()
    container.remove()


def refusals(client):
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        text = b"FROM busybox\n"
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    try:
        client.images.build(fileobj=context, custom_context=True)
        raise AssertionError("building is not there yet")
    except docker.errors.APIError as error:
        is_equal((error.response.status_code, "build" in error.explanation), (501, True))


def main():
    client = docker.from_env(version="auto")
    if sys.argv[1] == "tell":
        is_equal(client.ping(), True)
        print(docker.__version__, os.path.dirname(docker.__file__), sep="\n", flush=True)
        sys.stdin.readline()
        return
    pull(client, sys.argv[2])
    for scenario in (run, lifecycle, attach, images, events, refusals):
        try:
            scenario(client)
        except BaseException:
            print(f"in {scenario.__name__}:", file=sys.stderr)
            raise
    print("all passed")


main()
