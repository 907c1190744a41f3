/**
 * The system calls that a process of the mesh (sidecar, control plane, name server) may make once its program has begun: an
 * allow-list. Found by tracing Node 26 under load, with TLS, garbage collection, its threads and its ends, and by reading what
 * libuv and glibc fall back to. What is on no list fails with EPERM, so that a call of some rare path fails as calls do and ends
 * nothing. What only somebody makes who has taken the process over ends it at once, loudly (SIGSYS).
 */
import {
  ALLOW,
  AT_ARCH,
  AT_ARG0,
  AT_ARG1,
  AT_ARG2,
  AT_NUMBER,
  EACCES,
  ENOSYS,
  EPERM,
  errno,
  JUMP_ANY_BIT,
  JUMP_EQUAL,
  JUMP_GREATER_EQUAL,
  KILL_PROCESS,
  LOAD,
  MASK,
  programBytes,
  RETURN,
  X32,
  type Instruction,
} from "./program.ts";

/** Numbers on x64 and arm64 (asm/unistd.h); null: that machine has no such call. */
type Calls = Readonly<Record<string, readonly [x64: number, arm64: number | null]>>;

const ALLOWED: Calls = {
  read: [0, 63],
  write: [1, 64],
  readv: [19, 65],
  writev: [20, 66],
  pread64: [17, 67],
  preadv: [295, 69],
  close: [3, 57],
  fcntl: [72, 25],
  dup: [32, 23],
  dup3: [292, 24],
  lseek: [8, 62],
  poll: [7, null],
  ppoll: [271, 73],
  pselect6: [270, 72],
  select: [23, null],
  epoll_create1: [291, 20],
  epoll_ctl: [233, 21],
  epoll_wait: [232, null],
  epoll_pwait: [281, 22],
  epoll_pwait2: [441, 441],
  eventfd2: [290, 19],
  pipe2: [293, 59],
  timerfd_create: [283, 85],
  timerfd_settime: [286, 86],
  timerfd_gettime: [287, 87],
  bind: [49, 200],
  listen: [50, 201],
  accept: [43, 202],
  accept4: [288, 242],
  connect: [42, 203],
  getsockname: [51, 204],
  getpeername: [52, 205],
  getsockopt: [55, 209],
  setsockopt: [54, 208],
  shutdown: [48, 210],
  sendto: [44, 206],
  recvfrom: [45, 207],
  sendmsg: [46, 211],
  recvmsg: [47, 212],
  sendmmsg: [307, 269],
  recvmmsg: [299, 243],
  socketpair: [53, 199],
  newfstatat: [262, 79],
  fstat: [5, 80],
  statx: [332, 291],
  stat: [4, null],
  lstat: [6, null],
  readlink: [89, null],
  readlinkat: [267, 78],
  access: [21, null],
  faccessat: [269, 48],
  faccessat2: [439, 439],
  getdents64: [217, 61],
  getcwd: [79, 17],
  statfs: [137, 43],
  fstatfs: [138, 44],
  fadvise64: [221, 223],
  inotify_init1: [294, 26],
  inotify_add_watch: [254, 27],
  inotify_rm_watch: [255, 28],
  mmap: [9, 222],
  munmap: [11, 215],
  mprotect: [10, 226],
  mremap: [25, 216],
  madvise: [28, 233],
  brk: [12, 214],
  membarrier: [324, 283],
  pkey_alloc: [330, 289],
  pkey_mprotect: [329, 288],
  pkey_free: [331, 290],
  futex: [202, 98],
  set_robust_list: [273, 99],
  rseq: [334, 293],
  set_tid_address: [218, 96],
  sched_yield: [24, 124],
  sched_getaffinity: [204, 123],
  sched_getparam: [143, 121],
  sched_getscheduler: [145, 120],
  gettid: [186, 178],
  getpid: [39, 172],
  getppid: [110, 173],
  exit: [60, 93],
  exit_group: [231, 94],
  rt_sigaction: [13, 134],
  rt_sigprocmask: [14, 135],
  rt_sigreturn: [15, 139],
  rt_sigtimedwait: [128, 137],
  sigaltstack: [131, 132],
  tgkill: [234, 131],
  restart_syscall: [219, 128],
  clock_gettime: [228, 113],
  clock_getres: [229, 114],
  clock_nanosleep: [230, 115],
  nanosleep: [35, 101],
  gettimeofday: [96, 169],
  time: [201, null],
  times: [100, 153],
  getrusage: [98, 165],
  sysinfo: [99, 179],
  uname: [63, 160],
  getrandom: [318, 278],
  prlimit64: [302, 261],
  getrlimit: [97, 163],
  getuid: [102, 174],
  geteuid: [107, 175],
  getgid: [104, 176],
  getegid: [108, 177],
  getresuid: [118, 148],
  getresgid: [120, 150],
  getgroups: [115, 158],
  capget: [125, 90],
  getpriority: [140, 141],
  arch_prctl: [158, null],
  getcpu: [309, 168],
};

/** To listen on a Unix socket: another that lies there goes, and who may connect is said. */
const ALLOWED_FOR_SOCKETS: Calls = {
  unlink: [87, null],
  unlinkat: [263, 35],
  chmod: [90, null],
  fchmodat: [268, 53],
};

/** Where files may be written, which ones is for the view of the file system to say. */
const ALLOWED_FOR_FILES: Calls = {
  fsync: [74, 82],
  fdatasync: [75, 83],
  ftruncate: [77, 46],
  pwrite64: [18, 68],
  pwritev: [296, 70],
  rename: [82, null],
  renameat: [264, 38],
  renameat2: [316, 276],
  mkdir: [83, null],
  mkdirat: [258, 34],
  rmdir: [84, null],
  fchmod: [91, 52],
  fchown: [93, 55],
  fchownat: [260, 54],
  chown: [92, null],
  link: [86, null],
  linkat: [265, 37],
  utimensat: [280, 88],
  flock: [73, 32],
  fallocate: [285, 47],
  umask: [95, 166],
  symlink: [88, null],
  symlinkat: [266, 36],
};

/** Other programs, other processes, other privileges, the machine itself, and rings that go past this filter. */
const FATAL: Calls = {
  execve: [59, 221],
  execveat: [322, 281],
  fork: [57, null],
  vfork: [58, null],
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  kcmp: [312, 272],
  pidfd_getfd: [438, 438],
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  move_mount: [429, 429],
  open_tree: [428, 428],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  setns: [308, 268],
  unshare: [272, 97],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  reboot: [169, 142],
  swapon: [167, 224],
  swapoff: [168, 225],
  iopl: [172, null],
  ioperm: [173, null],
  keyctl: [250, 219],
  add_key: [248, 217],
  request_key: [249, 218],
  open_by_handle_at: [304, 265],
  name_to_handle_at: [303, 264],
  io_uring_enter: [426, 426],
  io_uring_register: [427, 427],
  setuid: [105, 146],
  setgid: [106, 144],
  setreuid: [113, 145],
  setregid: [114, 143],
  setresuid: [117, 147],
  setresgid: [119, 149],
  setgroups: [116, 159],
  setfsuid: [122, 151],
  setfsgid: [123, 152],
  capset: [126, 91],
  personality: [135, 92],
  acct: [163, 89],
  quotactl: [179, 60],
  syslog: [103, 116],
  mknod: [133, null],
  mknodat: [259, 33],
  seccomp: [317, 277],
};

/** Node, libuv and glibc ask for these and do without: flags behind a pointer, where a filter cannot look, and rings. */
const MISSING: Calls = {
  clone3: [435, 435],
  openat2: [437, 437],
  io_uring_setup: [425, 425],
};

const OPENAT = [257, 56] as const;
const CLONE = [56, 220] as const;
const SOCKET = [41, 198] as const;
const PRCTL = [157, 167] as const;
const IOCTL = [16, 29] as const;

const AUDIT_ARCH = { x64: 0xc000_003e, arm64: 0xc000_00b7 } as const;

const CLONE_THREAD = 0x1_0000;
/** CLONE_NEWTIME, and those of NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const CLONE_NEW_ANY = 0x7e02_0080;
/** O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND and the bit of O_TMPFILE; the same numbers on both machines. */
const OPENS_TO_WRITE = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20_000_000;
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const NETLINK_ROUTE = 0;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_TYPE_MASK = 0xf;
/** Names of threads (PR_SET_NAME, PR_GET_NAME) and of memory (PR_SET_VMA); whether we can be dumped, to read. */
const PRCTL_ALLOWED = [15, 16, 0x5356_4d41, 3];
/** FIONBIO, FIOCLEX, FIONREAD, and what asks whether something is a terminal (TCGETS, TIOCGWINSZ). */
const IOCTL_ALLOWED = [0x5421, 0x5451, 0x541b, 0x5401, 0x5413];

/** What a process changes of the file system that it sees: nothing, its Unix sockets, files too. */
export type Writes = "nothing" | "sockets" | "files";

/** The filter for a machine of ours, or null for one whose numbers we do not know. */
export function meshFilter(writes: Writes, arch: string = process.arch): Uint8Array | null {
  if (arch !== "x64" && arch !== "arm64") return null;
  const machine = arch === "x64" ? 0 : 1;
  const list = (calls: Calls, verdict: number): Instruction[] =>
    Object.values(calls).flatMap((numbers) => {
      const number = numbers[machine];
      return number === null ? [] : when(number, [[RETURN, 0, 0, verdict]]);
    });
  return programBytes([
    [LOAD, 0, 0, AT_ARCH],
    [JUMP_EQUAL, 1, 0, AUDIT_ARCH[arch]],
    [RETURN, 0, 0, KILL_PROCESS],
    [LOAD, 0, 0, AT_NUMBER],
    ...(arch === "x64" ? atLeast(X32, [[RETURN, 0, 0, KILL_PROCESS]]) : []),
    // Those with arguments first: for all others the kernel remembers the verdict and runs no filter.
    ...when(SOCKET[machine], socketRules()),
    ...when(OPENAT[machine], writes === "files" ? [[RETURN, 0, 0, ALLOW]] : openRules()),
    ...when(CLONE[machine], cloneRules()),
    ...when(PRCTL[machine], oneOf(AT_ARG0, PRCTL_ALLOWED)),
    ...when(IOCTL[machine], oneOf(AT_ARG1, IOCTL_ALLOWED)),
    ...list(ALLOWED, ALLOW),
    ...(writes === "nothing" ? [] : list(ALLOWED_FOR_SOCKETS, ALLOW)),
    ...(writes === "files" ? list(ALLOWED_FOR_FILES, ALLOW) : []),
    ...list(MISSING, errno(ENOSYS)),
    ...list(FATAL, KILL_PROCESS),
    [RETURN, 0, 0, errno(EPERM)],
  ]);
}

/** `then` ends in a return on each way; the number stays loaded for who comes after. */
function when(number: number, then: readonly Instruction[]): Instruction[] {
  return [[JUMP_EQUAL, 0, then.length, number], ...then];
}

function atLeast(number: number, then: readonly Instruction[]): Instruction[] {
  return [[JUMP_GREATER_EQUAL, 0, then.length, number], ...then];
}

/** Threads of its own, and no process. */
function cloneRules(): Instruction[] {
  return [
    [LOAD, 0, 0, AT_ARG0],
    [JUMP_ANY_BIT, 1, 0, CLONE_NEW_ANY],
    [JUMP_ANY_BIT, 1, 0, CLONE_THREAD],
    [RETURN, 0, 0, KILL_PROCESS],
    [RETURN, 0, 0, ALLOW],
  ];
}

function openRules(): Instruction[] {
  return [
    [LOAD, 0, 0, AT_ARG2],
    [JUMP_ANY_BIT, 0, 1, OPENS_TO_WRITE],
    [RETURN, 0, 0, errno(EACCES)],
    [RETURN, 0, 0, ALLOW],
  ];
}

/** Streams and datagrams of IP and Unix; of netlink what getaddrinfo(3) asks for addresses. No raw, packet or other sockets. */
function socketRules(): Instruction[] {
  return [
    [LOAD, 0, 0, AT_ARG0],
    [JUMP_EQUAL, 4, 0, AF_NETLINK],
    [JUMP_EQUAL, 5, 0, AF_INET],
    [JUMP_EQUAL, 4, 0, AF_INET6],
    [JUMP_EQUAL, 3, 0, AF_UNIX],
    [RETURN, 0, 0, errno(EPERM)],
    [LOAD, 0, 0, AT_ARG2],
    [JUMP_EQUAL, 4, 5, NETLINK_ROUTE],
    [LOAD, 0, 0, AT_ARG1],
    [MASK, 0, 0, SOCK_TYPE_MASK],
    [JUMP_EQUAL, 1, 0, SOCK_STREAM],
    [JUMP_EQUAL, 0, 1, SOCK_DGRAM],
    [RETURN, 0, 0, ALLOW],
    [RETURN, 0, 0, errno(EPERM)],
  ];
}

function oneOf(at: number, values: readonly number[]): Instruction[] {
  return [
    [LOAD, 0, 0, at],
    ...values.flatMap((value): Instruction[] => [
      [JUMP_EQUAL, 0, 1, value],
      [RETURN, 0, 0, ALLOW],
    ]),
    [RETURN, 0, 0, errno(EPERM)],
  ];
}
