import MultiwayCore

/// Which names a pickle may mention, and which it may ask to be called. Nothing is ever called; the lists decide what is
/// built as data, what is kept as an inert record, and what makes the file refused because it can only be an attack.
enum PicklePolicy {
  /// Refuses names of Python's standard library but for the few that are plain data: no checkpoint needs them, and every
  /// published attack uses one.
  static func check(_ global: PickleGlobal) throws(CheckpointError) {
    let parts = (global.module + "." + global.name).split(separator: ".", omittingEmptySubsequences: false)
    let isDotted = global.name.contains(".")
    let isLibrary = parts.first.map { standardLibrary.contains(String($0)) } ?? true
    let hidesLibrary = isDotted && parts.dropFirst().contains { standardLibrary.contains(String($0)) }
    if global.module.isEmpty || global.name.isEmpty || (isLibrary && !isInert(global)) || hidesLibrary {
      throw forbidden(global, "refers to")
    }
  }

  /// Decides about a call whose name builds no data: a class is recorded, a function is refused.
  static func checkCall(_ global: PickleGlobal, isConstructor: Bool) throws(CheckpointError) {
    if inert.contains(global.fullName) { return }
    let isFrameworkModule = ["torch", "numpy"].contains { global.module == $0 || global.module.hasPrefix($0 + ".") }
    if isConstructor && !isFrameworkModule && !global.name.contains(".") { return }
    guard global.name.split(separator: ".").allSatisfy({ isClassLike($0) }) else {
      throw forbidden(global, "wants to call")
    }
  }

  private static func isClassLike(_ name: Substring) -> Bool {
    name.first { $0 != "_" }?.isUppercase ?? false
  }

  private static func isInert(_ global: PickleGlobal) -> Bool {
    inert.contains(global.fullName) || plain.contains(global.fullName) || global.module == "typing"
  }

  private static func forbidden(_ global: PickleGlobal, _ verb: String) -> CheckpointError {
    CheckpointError(
      .forbiddenCall, "the pickle \(verb) \(global.fullName), which no checkpoint needs; it was not called",
      expected: "names of tensors, containers and plain classes", remedy: "do not load this file with any other tool")
  }

  /// Names of the standard library that build plain data.
  static let plain: Set<String> = [
    "collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.dict", "builtins.list",
    "builtins.tuple", "builtins.set", "builtins.frozenset", "builtins.bytearray", "builtins.bytes", "_codecs.encode",
    "copyreg._reconstructor",
  ]

  /// Names of the standard library and of NumPy that are kept as records.
  static let inert: Set<String> = [
    "argparse.Namespace", "types.SimpleNamespace", "collections.deque", "builtins.complex", "builtins.slice",
    "builtins.range", "builtins.object", "builtins.int", "builtins.float", "builtins.str", "builtins.bool",
    "builtins.type", "builtins.Ellipsis", "builtins.NotImplemented", "builtins.unicode", "builtins.long",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "pathlib.Path",
    "pathlib._local.PosixPath", "pathlib._local.WindowsPath", "pathlib._local.PurePosixPath",
    "pathlib._local.PureWindowsPath", "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta",
    "datetime.timezone", "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "functools.partial", "re._compile",
    "logging.getLogger", "logging.Logger", "random.Random", "string.Template", "enum.auto",
    "numpy.random._pickle.__randomstate_ctor", "numpy.random._pickle.__generator_ctor",
    "numpy.random._pickle.__bit_generator_ctor", "numpy.dtype", "torch.jit._pickle.build_tensor_from_id",
  ]

  /// The top-level modules of Python's standard library, versions 2.7 to 3.14, and package installers.
  static let standardLibrary = Set(
    """
    __future__ __phello__ _aix_support _ast _asyncio _bisect _blake2 _bootlocale _bz2 _codecs _collections
    _collections_abc _compat_pickle _compression _contextvars _crypt _csv _ctypes _curses _datetime _dbm _decimal
    _elementtree _frozen_importlib _functools _gdbm _hashlib _heapq _imp _interpreters _io _json _locale _lsprof _lzma
    _markupbase _md5 _multibytecodec _multiprocessing _opcode _operator _osx_support _overlapped _pickle _posixshmem
    _posixsubprocess _py_abc _pydecimal _pyio _pyrepl _queue _random _scproxy _sha1 _signal _sitebuiltins _socket
    _sqlite3 _sre _ssl _stat _statistics _string _strptime _struct _symtable _testcapi _thread _threading_local
    _tkinter _tracemalloc _typing _uuid _warnings _weakref _weakrefset _winapi _winreg _xxsubinterpreters _zoneinfo abc
    aifc antigravity argparse array ast asynchat asyncio asyncore atexit audioop base64 bdb binascii binhex bisect
    builtins bz2 cPickle cProfile cStringIO calendar cgi cgitb chunk cmath cmd code codecs codeop collections colorsys
    commands compileall concurrent configparser contextlib contextvars copy copyreg crypt csv ctypes curses dataclasses
    datetime dbm decimal difflib dis distutils doctest easy_install email encodings ensurepip enum errno faulthandler
    fcntl filecmp fileinput fnmatch formatter fractions ftplib functools gc genericpath getopt getpass gettext glob
    graphlib grp gzip hashlib heapq hmac html http httplib idlelib imaplib imghdr imp importlib inspect io ipaddress
    itertools json keyword lib2to3 linecache locale logging lzma macpath mailbox mailcap marshal math mimetypes mmap
    modulefinder msilib msvcrt multiprocessing netrc nis nntplib nt ntpath nturl2path numbers opcode operator optparse
    os ossaudiodev parser pathlib pdb pickle pickletools pip pipes pkg_resources pkgutil platform plistlib popen2
    poplib posix posixfile posixpath pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue
    quopri random re readline reprlib resource rlcompleter runpy sched secrets select selectors setuptools shelve shlex
    shutil signal site sitecustomize smtpd smtplib sndhdr socket socketserver spwd sqlite3 sre_compile sre_constants
    sre_parse ssl stat statistics string stringprep struct subprocess sunau symbol symtable sys sysconfig syslog
    tabnanny tarfile telnetlib tempfile termios test textwrap this threading time timeit tkinter token tokenize tomllib
    trace traceback tracemalloc tty turtle turtledemo types typing unicodedata unittest urllib urllib2 uu uuid venv
    warnings wave weakref webbrowser winreg winsound wsgiref xdrlib xml xmlrpc xxlimited xxsubtype zipapp zipfile
    zipimport zlib zoneinfo
    """.split { $0.isWhitespace }.map(String.init))
}
