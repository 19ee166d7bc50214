from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerMessage(_message.Message):
    __slots__ = ("hello", "credit", "result", "failed", "renew", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    credit: Credit
    result: ChunkResult
    failed: ChunkFailed
    renew: Renew
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., result: _Optional[_Union[ChunkResult, _Mapping]] = ..., failed: _Optional[_Union[ChunkFailed, _Mapping]] = ..., renew: _Optional[_Union[Renew, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class CoordinatorMessage(_message.Message):
    __slots__ = ("welcome", "reject", "open", "shard", "ack", "revoke", "renewed", "close", "drain")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    REVOKE_FIELD_NUMBER: _ClassVar[int]
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    reject: Reject
    open: Open
    shard: Shard
    ack: Ack
    revoke: Revoke
    renewed: Renewed
    close: Close
    drain: Drain
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., shard: _Optional[_Union[Shard, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., revoke: _Optional[_Union[Revoke, _Mapping]] = ..., renewed: _Optional[_Union[Renewed, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "engine", "version", "name", "lanes", "session")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    engine: int
    version: str
    name: str
    lanes: _containers.RepeatedCompositeFieldContainer[Lane]
    session: str
    def __init__(self, protocol: _Optional[int] = ..., engine: _Optional[int] = ..., version: _Optional[str] = ..., name: _Optional[str] = ..., lanes: _Optional[_Iterable[_Union[Lane, _Mapping]]] = ..., session: _Optional[str] = ...) -> None: ...

class Lane(_message.Message):
    __slots__ = ("device", "device_class")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    device: str
    device_class: str
    def __init__(self, device: _Optional[str] = ..., device_class: _Optional[str] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("shards",)
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards: int
    def __init__(self, shards: _Optional[int] = ...) -> None: ...

class ChunkId(_message.Message):
    __slots__ = ("experiment", "sweep", "round", "chunk")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    sweep: int
    round: int
    chunk: int
    def __init__(self, experiment: _Optional[str] = ..., sweep: _Optional[int] = ..., round: _Optional[int] = ..., chunk: _Optional[int] = ...) -> None: ...

class ChunkResult(_message.Message):
    __slots__ = ("id", "lease", "lane", "busy_us", "scores", "device_class", "idle_us")
    ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    BUSY_US_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    IDLE_US_FIELD_NUMBER: _ClassVar[int]
    id: ChunkId
    lease: int
    lane: int
    busy_us: int
    scores: bytes
    device_class: str
    idle_us: int
    def __init__(self, id: _Optional[_Union[ChunkId, _Mapping]] = ..., lease: _Optional[int] = ..., lane: _Optional[int] = ..., busy_us: _Optional[int] = ..., scores: _Optional[bytes] = ..., device_class: _Optional[str] = ..., idle_us: _Optional[int] = ...) -> None: ...

class ChunkFailed(_message.Message):
    __slots__ = ("id", "lease", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: ChunkId
    lease: int
    failure: Failure
    def __init__(self, id: _Optional[_Union[ChunkId, _Mapping]] = ..., lease: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("detail", "model_missing", "model_differs", "out_of_memory", "execution", "data_missing", "does_not_fit")
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    MODEL_MISSING_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIFFERS_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    DATA_MISSING_FIELD_NUMBER: _ClassVar[int]
    DOES_NOT_FIT_FIELD_NUMBER: _ClassVar[int]
    detail: str
    model_missing: ModelMissing
    model_differs: ModelDiffers
    out_of_memory: OutOfMemory
    execution: Execution
    data_missing: DataMissing
    does_not_fit: DoesNotFit
    def __init__(self, detail: _Optional[str] = ..., model_missing: _Optional[_Union[ModelMissing, _Mapping]] = ..., model_differs: _Optional[_Union[ModelDiffers, _Mapping]] = ..., out_of_memory: _Optional[_Union[OutOfMemory, _Mapping]] = ..., execution: _Optional[_Union[Execution, _Mapping]] = ..., data_missing: _Optional[_Union[DataMissing, _Mapping]] = ..., does_not_fit: _Optional[_Union[DoesNotFit, _Mapping]] = ...) -> None: ...

class ModelMissing(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class ModelDiffers(_message.Message):
    __slots__ = ("expected", "found")
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    expected: str
    found: str
    def __init__(self, expected: _Optional[str] = ..., found: _Optional[str] = ...) -> None: ...

class OutOfMemory(_message.Message):
    __slots__ = ("requested_bytes",)
    REQUESTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    requested_bytes: int
    def __init__(self, requested_bytes: _Optional[int] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DataMissing(_message.Message):
    __slots__ = ("hash",)
    HASH_FIELD_NUMBER: _ClassVar[int]
    hash: str
    def __init__(self, hash: _Optional[str] = ...) -> None: ...

class DoesNotFit(_message.Message):
    __slots__ = ("device", "needed_bytes", "free_bytes")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NEEDED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    device: str
    needed_bytes: int
    free_bytes: int
    def __init__(self, device: _Optional[str] = ..., needed_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ("leases", "held")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedScalarFieldContainer[int]
    held: _containers.RepeatedCompositeFieldContainer[Held]
    def __init__(self, leases: _Optional[_Iterable[int]] = ..., held: _Optional[_Iterable[_Union[Held, _Mapping]]] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("lease", "experiment", "sweep", "round", "chunks")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    lease: int
    experiment: str
    sweep: int
    round: int
    chunks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, lease: _Optional[int] = ..., experiment: _Optional[str] = ..., sweep: _Optional[int] = ..., round: _Optional[int] = ..., chunks: _Optional[_Iterable[int]] = ...) -> None: ...

class Renewed(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, leases: _Optional[_Iterable[int]] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("worker", "epoch", "lease_ms", "protocol")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    worker: int
    epoch: int
    lease_ms: int
    protocol: int
    def __init__(self, worker: _Optional[int] = ..., epoch: _Optional[int] = ..., lease_ms: _Optional[int] = ..., protocol: _Optional[int] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("detail", "version_differs", "not_leader", "limit_reached")
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    VERSION_DIFFERS_FIELD_NUMBER: _ClassVar[int]
    NOT_LEADER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_REACHED_FIELD_NUMBER: _ClassVar[int]
    detail: str
    version_differs: VersionDiffers
    not_leader: NotLeader
    limit_reached: LimitReached
    def __init__(self, detail: _Optional[str] = ..., version_differs: _Optional[_Union[VersionDiffers, _Mapping]] = ..., not_leader: _Optional[_Union[NotLeader, _Mapping]] = ..., limit_reached: _Optional[_Union[LimitReached, _Mapping]] = ...) -> None: ...

class VersionDiffers(_message.Message):
    __slots__ = ("protocol", "engine")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    engine: int
    def __init__(self, protocol: _Optional[int] = ..., engine: _Optional[int] = ...) -> None: ...

class NotLeader(_message.Message):
    __slots__ = ("url",)
    URL_FIELD_NUMBER: _ClassVar[int]
    url: str
    def __init__(self, url: _Optional[str] = ...) -> None: ...

class LimitReached(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class Unidentified(_message.Message):
    __slots__ = ("reason",)
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[Unidentified.Reason]
        MISSING: _ClassVar[Unidentified.Reason]
        UNKNOWN: _ClassVar[Unidentified.Reason]
        EXPIRED: _ClassVar[Unidentified.Reason]
    UNSPECIFIED: Unidentified.Reason
    MISSING: Unidentified.Reason
    UNKNOWN: Unidentified.Reason
    EXPIRED: Unidentified.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: Unidentified.Reason
    def __init__(self, reason: _Optional[_Union[Unidentified.Reason, str]] = ...) -> None: ...

class NotPermitted(_message.Message):
    __slots__ = ("roles", "needed")
    ROLES_FIELD_NUMBER: _ClassVar[int]
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    roles: _containers.RepeatedScalarFieldContainer[str]
    needed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, roles: _Optional[_Iterable[str]] = ..., needed: _Optional[_Iterable[str]] = ...) -> None: ...

class OverLimit(_message.Message):
    __slots__ = ("what", "limit", "retry_after_ms")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    what: str
    limit: int
    retry_after_ms: int
    def __init__(self, what: _Optional[str] = ..., limit: _Optional[int] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("experiment", "plan", "model_source", "constants")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    MODEL_SOURCE_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    plan: bytes
    model_source: str
    constants: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, experiment: _Optional[str] = ..., plan: _Optional[bytes] = ..., model_source: _Optional[str] = ..., constants: _Optional[_Iterable[str]] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("experiment",)
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    def __init__(self, experiment: _Optional[str] = ...) -> None: ...

class Shard(_message.Message):
    __slots__ = ("lease", "experiment", "sweep", "round", "list", "first_chunk", "chunks")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    FIRST_CHUNK_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    lease: int
    experiment: str
    sweep: int
    round: int
    list: _containers.RepeatedScalarFieldContainer[int]
    first_chunk: int
    chunks: int
    def __init__(self, lease: _Optional[int] = ..., experiment: _Optional[str] = ..., sweep: _Optional[int] = ..., round: _Optional[int] = ..., list: _Optional[_Iterable[int]] = ..., first_chunk: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("id", "duplicate")
    ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    id: ChunkId
    duplicate: bool
    def __init__(self, id: _Optional[_Union[ChunkId, _Mapping]] = ..., duplicate: bool = ...) -> None: ...

class Revoke(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: int
    def __init__(self, lease: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BlobRequest(_message.Message):
    __slots__ = ("hash",)
    HASH_FIELD_NUMBER: _ClassVar[int]
    hash: str
    def __init__(self, hash: _Optional[str] = ...) -> None: ...

class BlobPart(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class LeaderRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaderReply(_message.Message):
    __slots__ = ("leading", "epoch", "url")
    LEADING_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    leading: bool
    epoch: int
    url: str
    def __init__(self, leading: bool = ..., epoch: _Optional[int] = ..., url: _Optional[str] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("spec_toml", "base_dir", "origin")
    SPEC_TOML_FIELD_NUMBER: _ClassVar[int]
    BASE_DIR_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    spec_toml: str
    base_dir: str
    origin: str
    def __init__(self, spec_toml: _Optional[str] = ..., base_dir: _Optional[str] = ..., origin: _Optional[str] = ...) -> None: ...

class SubmitReply(_message.Message):
    __slots__ = ("id", "existed")
    ID_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    id: str
    existed: bool
    def __init__(self, id: _Optional[str] = ..., existed: bool = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("experiments",)
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    experiments: _containers.RepeatedCompositeFieldContainer[ExperimentStatus]
    def __init__(self, experiments: _Optional[_Iterable[_Union[ExperimentStatus, _Mapping]]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ("id", "action")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[ControlRequest.Action]
        PAUSE: _ClassVar[ControlRequest.Action]
        RESUME: _ClassVar[ControlRequest.Action]
        CANCEL: _ClassVar[ControlRequest.Action]
        RETRY: _ClassVar[ControlRequest.Action]
    UNSPECIFIED: ControlRequest.Action
    PAUSE: ControlRequest.Action
    RESUME: ControlRequest.Action
    CANCEL: ControlRequest.Action
    RETRY: ControlRequest.Action
    ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    action: ControlRequest.Action
    def __init__(self, id: _Optional[str] = ..., action: _Optional[_Union[ControlRequest.Action, str]] = ...) -> None: ...

class WorkersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WorkersReply(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    def __init__(self, workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("id", "name", "version", "lanes", "leased_chunks", "accepted_chunks", "failures", "connected_ms", "busy_us", "idle_us", "protocol")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    LEASED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_MS_FIELD_NUMBER: _ClassVar[int]
    BUSY_US_FIELD_NUMBER: _ClassVar[int]
    IDLE_US_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    version: str
    lanes: _containers.RepeatedCompositeFieldContainer[Lane]
    leased_chunks: int
    accepted_chunks: int
    failures: int
    connected_ms: int
    busy_us: int
    idle_us: int
    protocol: int
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., lanes: _Optional[_Iterable[_Union[Lane, _Mapping]]] = ..., leased_chunks: _Optional[int] = ..., accepted_chunks: _Optional[int] = ..., failures: _Optional[int] = ..., connected_ms: _Optional[int] = ..., busy_us: _Optional[int] = ..., idle_us: _Optional[int] = ..., protocol: _Optional[int] = ...) -> None: ...

class ExperimentStatus(_message.Message):
    __slots__ = ("id", "name", "state", "sweeps", "chunks_planned", "chunks_computed", "chunks_accepted", "chunks_duplicate", "quarantined", "error", "output", "workers", "quarantined_chunks")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SWEEPS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_PLANNED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_COMPUTED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    state: str
    sweeps: _containers.RepeatedCompositeFieldContainer[SweepStatus]
    chunks_planned: int
    chunks_computed: int
    chunks_accepted: int
    chunks_duplicate: int
    quarantined: int
    error: str
    output: str
    workers: int
    quarantined_chunks: _containers.RepeatedCompositeFieldContainer[QuarantinedChunk]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., sweeps: _Optional[_Iterable[_Union[SweepStatus, _Mapping]]] = ..., chunks_planned: _Optional[int] = ..., chunks_computed: _Optional[int] = ..., chunks_accepted: _Optional[int] = ..., chunks_duplicate: _Optional[int] = ..., quarantined: _Optional[int] = ..., error: _Optional[str] = ..., output: _Optional[str] = ..., workers: _Optional[int] = ..., quarantined_chunks: _Optional[_Iterable[_Union[QuarantinedChunk, _Mapping]]] = ...) -> None: ...

class QuarantinedChunk(_message.Message):
    __slots__ = ("sweep", "round", "chunk", "sweep_name", "error")
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    SWEEP_NAME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sweep: int
    round: int
    chunk: int
    sweep_name: str
    error: str
    def __init__(self, sweep: _Optional[int] = ..., round: _Optional[int] = ..., chunk: _Optional[int] = ..., sweep_name: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class SweepStatus(_message.Message):
    __slots__ = ("name", "subsets_total", "subsets_done", "chunks_total", "chunks_done", "round", "rounds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBSETS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SUBSETS_DONE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_DONE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    subsets_total: int
    subsets_done: int
    chunks_total: int
    chunks_done: int
    round: int
    rounds: int
    def __init__(self, name: _Optional[str] = ..., subsets_total: _Optional[int] = ..., subsets_done: _Optional[int] = ..., chunks_total: _Optional[int] = ..., chunks_done: _Optional[int] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ...) -> None: ...

class LiveRequest(_message.Message):
    __slots__ = ("id", "seen")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    id: str
    seen: int
    def __init__(self, id: _Optional[str] = ..., seen: _Optional[int] = ...) -> None: ...

class LiveReply(_message.Message):
    __slots__ = ("revision", "groups")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    groups: _containers.RepeatedCompositeFieldContainer[LiveGroup]
    def __init__(self, revision: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[LiveGroup, _Mapping]]] = ...) -> None: ...

class LiveGroup(_message.Message):
    __slots__ = ("task", "metric", "method", "unit", "baseline", "units", "curves", "pairs")
    TASK_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    CURVES_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    task: str
    metric: str
    method: str
    unit: str
    baseline: float
    units: _containers.RepeatedCompositeFieldContainer[LiveUnit]
    curves: _containers.RepeatedCompositeFieldContainer[LiveCurve]
    pairs: LivePairs
    def __init__(self, task: _Optional[str] = ..., metric: _Optional[str] = ..., method: _Optional[str] = ..., unit: _Optional[str] = ..., baseline: _Optional[float] = ..., units: _Optional[_Iterable[_Union[LiveUnit, _Mapping]]] = ..., curves: _Optional[_Iterable[_Union[LiveCurve, _Mapping]]] = ..., pairs: _Optional[_Union[LivePairs, _Mapping]] = ...) -> None: ...

class LiveUnit(_message.Message):
    __slots__ = ("name", "stream", "layer", "head", "delta", "low", "high", "resolved")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    name: str
    stream: str
    layer: int
    head: int
    delta: float
    low: float
    high: float
    resolved: bool
    def __init__(self, name: _Optional[str] = ..., stream: _Optional[str] = ..., layer: _Optional[int] = ..., head: _Optional[int] = ..., delta: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., resolved: bool = ...) -> None: ...

class LiveCurve(_message.Message):
    __slots__ = ("order", "selecting", "last", "points")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    SELECTING_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    order: str
    selecting: bool
    last: int
    points: _containers.RepeatedCompositeFieldContainer[LivePoint]
    def __init__(self, order: _Optional[str] = ..., selecting: bool = ..., last: _Optional[int] = ..., points: _Optional[_Iterable[_Union[LivePoint, _Mapping]]] = ...) -> None: ...

class LivePoint(_message.Message):
    __slots__ = ("removed", "value", "retained", "unit")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    RETAINED_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    removed: int
    value: float
    retained: float
    unit: str
    def __init__(self, removed: _Optional[int] = ..., value: _Optional[float] = ..., retained: _Optional[float] = ..., unit: _Optional[str] = ...) -> None: ...

class LivePairs(_message.Message):
    __slots__ = ("known", "planned", "skipped", "above", "below")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    PLANNED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    ABOVE_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    known: int
    planned: int
    skipped: int
    above: _containers.RepeatedCompositeFieldContainer[LivePair]
    below: _containers.RepeatedCompositeFieldContainer[LivePair]
    def __init__(self, known: _Optional[int] = ..., planned: _Optional[int] = ..., skipped: _Optional[int] = ..., above: _Optional[_Iterable[_Union[LivePair, _Mapping]]] = ..., below: _Optional[_Iterable[_Union[LivePair, _Mapping]]] = ...) -> None: ...

class LivePair(_message.Message):
    __slots__ = ("a", "b", "interaction", "se")
    A_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    INTERACTION_FIELD_NUMBER: _ClassVar[int]
    SE_FIELD_NUMBER: _ClassVar[int]
    a: int
    b: int
    interaction: float
    se: float
    def __init__(self, a: _Optional[int] = ..., b: _Optional[int] = ..., interaction: _Optional[float] = ..., se: _Optional[float] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("id", "format")
    ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    id: str
    format: str
    def __init__(self, id: _Optional[str] = ..., format: _Optional[str] = ...) -> None: ...

class FilePart(_message.Message):
    __slots__ = ("name", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...
