// Drives an engine with Docker's own client for Go, from the environment: with the version of the API
// agreed upon, or pinned to the one that is told.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/docker/api"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
)

var everything = context.Background()

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func isEqual(found, wanted interface{}) {
	if found != wanted {
		panic(fmt.Sprintf("%#v, not %#v", found, wanted))
	}
}

// What a stream of an attached process or a log says on stdout and stderr.
func read(stream io.Reader) (string, string) {
	var out, err bytes.Buffer
	_, failure := stdcopy.StdCopy(&out, &err, stream)
	must(failure)
	return out.String(), err.String()
}

func create(docker *client.Client, name string, config container.Config) string {
	made, err := docker.ContainerCreate(everything, &config, &container.HostConfig{}, nil, nil, name)
	must(err)
	return made.ID
}

// The exit code of a container that is started here.
func run(docker *client.Client, id string) int64 {
	ended, failed := docker.ContainerWait(everything, id, container.WaitConditionNextExit)
	must(docker.ContainerStart(everything, id, types.ContainerStartOptions{}))
	select {
	case end := <-ended:
		return end.StatusCode
	case err := <-failed:
		panic(err)
	}
}

func logs(docker *client.Client, id string) (string, string) {
	options := types.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true}
	stream, err := docker.ContainerLogs(everything, id, options)
	must(err)
	defer stream.Close()
	return read(stream)
}

func pull(docker *client.Client, image string) {
	progress, err := docker.ImagePull(everything, image, types.ImagePullOptions{})
	must(err)
	told, err := io.ReadAll(progress)
	must(err)
	isEqual(strings.Contains(string(told), "Downloaded newer image for "+image), true)
	_, err = docker.ImagePull(everything, image+"-not", types.ImagePullOptions{})
	isEqual(client.IsErrNotFound(err), true)

	byName := filters.NewArgs(filters.Arg("reference", image))
	images, err := docker.ImageList(everything, types.ImageListOptions{Filters: byName})
	must(err)
	isEqual(len(images), 1)
	isEqual(images[0].RepoTags[0], image)

	id := create(docker, "", container.Config{Image: image})
	isEqual(run(docker, id), int64(0))
	out, _ := logs(docker, id)
	isEqual(out, "from the registry\n")
	must(docker.ContainerRemove(everything, id, types.ContainerRemoveOptions{}))
	_, err = docker.ImageRemove(everything, image, types.ImageRemoveOptions{})
	must(err)
}

func runs(docker *client.Client) {
	script := "echo out $WORD; echo err >&2; exit 3"
	id := create(docker, "go", container.Config{
		Image: "busybox", Cmd: []string{"sh", "-c", script}, Env: []string{"WORD=value"},
	})
	isEqual(run(docker, id), int64(3))
	out, err := logs(docker, id)
	isEqual(out+err, "out value\nerr\n")
	found, failure := docker.ContainerInspect(everything, "go")
	must(failure)
	isEqual(found.State.ExitCode, 3)
	isEqual(found.ID, id)
	must(docker.ContainerRemove(everything, "go", types.ContainerRemoveOptions{}))
	_, failure = docker.ContainerInspect(everything, "go")
	isEqual(client.IsErrNotFound(failure), true)
	_, failure = docker.ContainerCreate(everything, &container.Config{Image: "nothing/there"}, nil, nil, nil, "")
	isEqual(client.IsErrNotFound(failure), true)
}

func execs(docker *client.Client) {
	id := create(docker, "work", container.Config{
		Image: "busybox", Cmd: []string{"sleep", "1000"}, Labels: map[string]string{"by": "docker-go"},
	})
	must(docker.ContainerStart(everything, id, types.ContainerStartOptions{}))
	ours := filters.NewArgs(filters.Arg("label", "by=docker-go"))
	list, err := docker.ContainerList(everything, types.ContainerListOptions{Filters: ours})
	must(err)
	isEqual(len(list), 1)
	isEqual(list[0].Names[0]+" "+list[0].State, "/work running")

	config := types.ExecConfig{
		Cmd:         []string{"sh", "-c", "read line; echo got $line; echo err >&2; exit 4"},
		AttachStdin: true, AttachStdout: true, AttachStderr: true,
	}
	made, err := docker.ContainerExecCreate(everything, id, config)
	must(err)
	attached, err := docker.ContainerExecAttach(everything, made.ID, types.ExecStartCheck{})
	must(err)
	_, err = attached.Conn.Write([]byte("typed\n"))
	must(err)
	out, told := read(attached.Reader)
	attached.Close()
	isEqual(out+told, "got typed\nerr\n")
	ended, err := docker.ContainerExecInspect(everything, made.ID)
	must(err)
	isEqual(ended.ExitCode, 4)

	must(docker.ContainerRemove(everything, id, types.ContainerRemoveOptions{Force: true}))
	list, err = docker.ContainerList(everything, types.ContainerListOptions{All: true})
	must(err)
	isEqual(len(list), 0)
}

// Usage: docker_go tell | docker_go scenarios IMAGE [VERSION]
func main() {
	options := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	version := api.DefaultVersion
	if len(os.Args) > 3 {
		version = os.Args[3]
		options[1] = client.WithVersion(version)
	}
	docker, err := client.NewClientWithOpts(options...)
	must(err)
	defer docker.Close()
	ping, err := docker.Ping(everything)
	must(err)
	docker.NegotiateAPIVersionPing(ping)
	isEqual(docker.ClientVersion(), version)
	if os.Args[1] == "tell" {
		program, err := os.Executable()
		must(err)
		fmt.Printf("%s\n%s\n", version, program)
		bufio.NewReader(os.Stdin).ReadString('\n')
		return
	}
	pull(docker, os.Args[2])
	runs(docker)
	execs(docker)
	fmt.Println("all passed")
}
