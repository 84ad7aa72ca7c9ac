{
  # The native addon. `npx node-gyp rebuild -C addon` (with --nodedir=/usr where the headers are Debian's) makes
  # build/Release/tandem.node. Node-API only, so one binary loads in every Node.js from 20 on.
  "targets": [
    {
      "target_name": "tandem",
      "sources": [
        "src/module.cc",
        "src/errors.cc",
        "src/bpf.cc",
        "src/verifier_log.cc",
        "src/ring.cc",
        "src/record_checksum.cc",
        "src/record_merge.cc",
        "src/rtnetlink.cc",
        "src/netlink_parse.cc",
        "src/netlink_request.cc",
        "src/socket_end.cc",
        "src/descriptors.cc",
        "src/polled.cc",
        "src/tcp_state.cc",
        "src/restore.cc",
        "src/tcp_repair.cc",
        "src/socket_options.cc",
        "src/inject.cc",
        "src/sd_notify.cc",
        "src/spawn.cc",
        "src/pulse.cc",
        "src/pulse_state.cc",
        "src/resident.cc",
        "src/pulse_wire.cc",
        "src/siphash.cc"
      ],
      # SWALLOW...: an exception that a terminated worker cannot take is dropped; it would abort the process.
      "defines": [
        "NAPI_VERSION=8",
        "NODE_ADDON_API_CPP_EXCEPTIONS",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
        "_GNU_SOURCE"
      ],
      "include_dirs": ["../bpf"],
      "cflags!": ["-fno-exceptions"],
      "cflags_cc!": ["-fno-exceptions", "-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": [
        "-std=c++17",
        "-fexceptions",
        "-O3",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-isystem",
        "<!(node -p \"require('path').dirname(require.resolve('node-addon-api'))\")",
        "<!@(pkg-config --cflags libbpf libelf)"
      ],
      "libraries": ["<!@(pkg-config --libs libbpf libelf)"]
    }
  ]
}
