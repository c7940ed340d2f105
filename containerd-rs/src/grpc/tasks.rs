//! `containerd.services.tasks.v1.Tasks`: conversion between the wire and [`Runtime`].

use futures_util::future::join_all;
use prost_types::Timestamp;
use proto::containerd::services::tasks::v1::tasks_server::Tasks;
use proto::containerd::services::tasks::v1::{
    CheckpointTaskRequest, CheckpointTaskResponse, CloseIoRequest, CreateTaskRequest,
    CreateTaskResponse, DeleteProcessRequest, DeleteResponse, DeleteTaskRequest,
    ExecProcessRequest, GetRequest, GetResponse, KillRequest, ListPidsRequest, ListPidsResponse,
    ListTasksRequest, ListTasksResponse, MetricsRequest, MetricsResponse, PauseTaskRequest,
    ResizePtyRequest, ResumeTaskRequest, StartRequest, StartResponse, UpdateTaskRequest,
    WaitRequest, WaitResponse,
};
use proto::containerd::task::v2 as shim;
use proto::containerd::types::Metric;
use proto::containerd::v1::types::Process;
use proto::errdefs::Kind;
use std::borrow::Cow;
use std::sync::Arc;
use tonic::{Request, Response, Status};

use super::{context, to_status};
use crate::context::{Namespace, check_identifier};
use crate::filter::{Fields, Filters};
use crate::runtime::{CreateTask, Exit, Runtime, Task, TaskError, TaskKey};
use crate::store::containers::Containers;

type Answer<T> = Result<Response<T>, Status>;

/// The service.
pub(crate) struct TasksService {
    runtime: Runtime,
    containers: Containers,
}

impl TasksService {
    pub(crate) fn new(runtime: Runtime, containers: Containers) -> Self {
        Self { runtime, containers }
    }

    /// The task that a request is about.
    fn task<T>(&self, request: &Request<T>, id: &str) -> Result<Arc<Task>, Status> {
        let namespace = context(request)?.namespace;
        let key = TaskKey { namespace: namespace.as_str().to_owned(), id: id.to_owned() };
        match self.runtime.get(&key) {
            Ok(task) => Ok(task),
            Err(error) => {
                // Compat: a container that does not exist is named before its task.
                self.containers.get(&namespace, id).map_err(to_status)?;
                Err(refuse(error))
            }
        }
    }
}

fn refuse(error: TaskError) -> Status {
    error.kind().status(error.to_string())
}

fn process(state: shim::StateResponse, id: &str) -> Process {
    Process {
        // Compat: containerd leaves the container's id empty and names the process here.
        container_id: String::new(),
        id: id.to_owned(),
        pid: state.pid,
        status: state.status,
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: state.exited_at,
    }
}

fn deleted(exit: Exit, exec_id: String) -> Response<DeleteResponse> {
    Response::new(DeleteResponse {
        id: exec_id,
        pid: exit.pid,
        exit_status: exit.status,
        exited_at: exit.at,
    })
}

#[tonic::async_trait]
impl Tasks for TasksService {
    async fn create(&self, request: Request<CreateTaskRequest>) -> Answer<CreateTaskResponse> {
        let namespace = context(&request)?.namespace;
        let request = request.into_inner();
        let container =
            self.containers.get(&namespace, &request.container_id).map_err(to_status)?;
        if request.checkpoint.is_some() {
            return Err(Kind::Unimplemented.status("restore from a checkpoint: not implemented"));
        }
        let key =
            TaskKey { namespace: namespace.as_str().to_owned(), id: request.container_id.clone() };
        // Compat: a path in the request wins over the container's runtime, and so do its options.
        let runtime = match request.runtime_path.as_str() {
            "" => container.runtime.name,
            path => path.to_owned(),
        };
        let given = request.options.filter(|options| !options.value.is_empty());
        let create = CreateTask {
            spec: container.spec.map(|spec| spec.value).unwrap_or_default(),
            runtime,
            options: given.or_else(|| container.runtime.options.map(Into::into)),
            rootfs: request.rootfs,
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let (_, pid) = self.runtime.create(key, create).await.map_err(refuse)?;
        Ok(Response::new(CreateTaskResponse { container_id: request.container_id, pid }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Answer<StartResponse> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        let pid = task.start(&request.get_ref().exec_id).await.map_err(refuse)?;
        Ok(Response::new(StartResponse { pid }))
    }

    async fn delete(&self, request: Request<DeleteTaskRequest>) -> Answer<DeleteResponse> {
        let id = &request.get_ref().container_id;
        let namespace = context(&request)?.namespace.as_str().to_owned();
        self.runtime.settled(&TaskKey { namespace, id: id.clone() }).await;
        let task = self.task(&request, id)?;
        Ok(deleted(task.delete().await.map_err(refuse)?, String::new()))
    }

    async fn delete_process(
        &self,
        request: Request<DeleteProcessRequest>,
    ) -> Answer<DeleteResponse> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        let exec_id = request.into_inner().exec_id;
        if exec_id.is_empty() {
            // The shim would take this for the first process, behind its owner's back.
            return Err(Kind::InvalidArgument.status("exec id cannot be empty: invalid argument"));
        }
        Ok(deleted(task.delete_process(&exec_id).await.map_err(refuse)?, exec_id))
    }

    async fn get(&self, request: Request<GetRequest>) -> Answer<GetResponse> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        let GetRequest { container_id, exec_id } = request.into_inner();
        let state = task.state(&exec_id).await.map_err(refuse)?;
        let id = if exec_id.is_empty() { container_id } else { exec_id };
        Ok(Response::new(GetResponse { process: Some(process(state, &id)) }))
    }

    async fn list(&self, request: Request<ListTasksRequest>) -> Answer<ListTasksResponse> {
        let namespace = context(&request)?.namespace;
        let tasks = self.runtime.list(namespace.as_str());
        let states = tasks.iter().map(async |task| {
            match task.state("").await {
                Ok(state) => Some(process(state, &task.key().id)),
                // Deleted meanwhile, or silent: neither may spoil the list.
                Err(error) => {
                    tracing::debug!(container = task.key().id, %error, "state for the list");
                    None
                }
            }
        });
        let tasks = join_all(states).await.into_iter().flatten().collect();
        Ok(Response::new(ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Answer<()> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        let KillRequest { exec_id, signal, all, .. } = request.into_inner();
        task.kill(&exec_id, signal, all).await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn exec(&self, request: Request<ExecProcessRequest>) -> Answer<()> {
        let exec_id = &request.get_ref().exec_id;
        if exec_id.is_empty() {
            return Err(Kind::InvalidArgument.status("exec id cannot be empty: invalid argument"));
        }
        check_identifier(exec_id).map_err(|error| {
            Kind::InvalidArgument.status(format!("invalid exec id {exec_id}: {error}"))
        })?;
        let task = self.task(&request, &request.get_ref().container_id)?;
        let request = request.into_inner();
        let exec = shim::ExecProcessRequest {
            id: request.container_id,
            exec_id: request.exec_id,
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            spec: request.spec,
        };
        task.exec(exec).await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn resize_pty(&self, request: Request<ResizePtyRequest>) -> Answer<()> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        let ResizePtyRequest { exec_id, width, height, .. } = request.into_inner();
        task.resize(&exec_id, width, height).await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn close_io(&self, request: Request<CloseIoRequest>) -> Answer<()> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        let CloseIoRequest { exec_id, stdin, .. } = request.into_inner();
        task.close_io(&exec_id, stdin).await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn pause(&self, request: Request<PauseTaskRequest>) -> Answer<()> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        task.pause().await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn resume(&self, request: Request<ResumeTaskRequest>) -> Answer<()> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        task.resume().await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn list_pids(&self, request: Request<ListPidsRequest>) -> Answer<ListPidsResponse> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        let processes = task.pids().await.map_err(refuse)?;
        Ok(Response::new(ListPidsResponse { processes }))
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointTaskRequest>,
    ) -> Answer<CheckpointTaskResponse> {
        self.task(&request, &request.get_ref().container_id)?;
        Err(Kind::Unimplemented.status("checkpoint: not implemented"))
    }

    async fn update(&self, request: Request<UpdateTaskRequest>) -> Answer<()> {
        let task = self.task(&request, &request.get_ref().container_id)?;
        let UpdateTaskRequest { resources, annotations, .. } = request.into_inner();
        task.update(resources, annotations).await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn metrics(&self, request: Request<MetricsRequest>) -> Answer<MetricsResponse> {
        let namespace = context(&request)?.namespace;
        let filters = Filters::parse(&request.get_ref().filters).map_err(to_status)?;
        let mut tasks = self.runtime.list(namespace.as_str());
        tasks.retain(|task| filters.matches(&Named { id: &task.key().id, namespace: &namespace }));
        let metrics = tasks.iter().map(async |task| {
            let timestamp = Some(Timestamp::from(std::time::SystemTime::now()));
            match task.stats().await {
                Ok(data) => Some(Metric { timestamp, id: task.key().id.clone(), data }),
                // Compat: a task that has none, having ended, is left out.
                Err(error) => {
                    tracing::debug!(container = task.key().id, %error, "metrics");
                    None
                }
            }
        });
        let metrics = join_all(metrics).await.into_iter().flatten().collect();
        Ok(Response::new(MetricsResponse { metrics }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Answer<WaitResponse> {
        let WaitRequest { container_id, exec_id } = request.get_ref();
        let exit = match self.task(&request, container_id) {
            Ok(task) => task.wait(exec_id).await.map_err(refuse)?,
            Err(status) => {
                let namespace = context(&request)?.namespace.as_str().to_owned();
                let key = TaskKey { namespace, id: container_id.clone() };
                self.runtime.end_of(&key).filter(|_| exec_id.is_empty()).ok_or(status)?
            }
        };
        Ok(Response::new(WaitResponse { exit_status: exit.status, exited_at: exit.at }))
    }
}

/// What metrics can be filtered by.
struct Named<'a> {
    id: &'a str,
    namespace: &'a Namespace,
}

impl Fields for Named<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path {
            [field] if field == "id" => Some(self.id.into()),
            [field] if field == "namespace" => Some(self.namespace.as_str().into()),
            _ => None,
        }
    }
}
