// A real etcd cluster of three members on the lab's host: TLS with client certificates, authentication by password.

import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { addressPlan, type Lab } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";

const address = addressPlan.host.v4;
const members = [0, 1, 2] as const;
const clientPort = (member: number): number => 23790 + member;
const peerPort = (member: number): number => 23800 + member;
const password = "not a secret";

export const etcdAbsent: string | false = ["etcd", "etcdctl"].some((program) => spawnSync(program, ["--version"]).error)
  ? "etcd is not installed (Debian: etcd-server, etcd-client)"
  : false;

export class EtcdCluster {
  readonly endpoints = members.map((member) => `https://${address}:${clientPort(member)}`);
  readonly #directory: string;
  readonly #processes: LabProcess[];

  private constructor(private readonly lab: Lab) {
    this.#directory = path.join(lab.directory, "etcd");
    mkdirSync(this.#directory);
    this.#makeCertificates();
    writeFileSync(this.#file("password"), `${password}\n`, { mode: 0o600 });
    this.#processes = members.map((member) => this.#start(member));
  }

  static async start(lab: Lab): Promise<EtcdCluster> {
    const cluster = new EtcdCluster(lab);
    await cluster.#untilHealthy();
    for (const words of [
      ["user", "add", `root:${password}`],
      ["user", "grant-role", "root", "root"],
      ["role", "add", "tandem"],
      ["role", "grant-permission", "tandem", "readwrite", "--prefix=true", "/tandem"],
      ["user", "add", `tandem:${password}`],
      ["user", "grant-role", "tandem", "tandem"],
      ["auth", "enable"],
    ])
      cluster.#control(words);
    return cluster;
  }

  /** `pair.arbiter` of a pair that uses it. */
  arbiter(): Record<string, unknown> {
    return {
      kind: "etcd",
      endpoints: this.endpoints,
      ttlMs: 3000,
      tls: { ca: this.#file("ca.crt"), cert: this.#file("client.crt"), key: this.#file("client.key") },
      user: { name: "tandem", passwordFile: this.#file("password") },
    };
  }

  /** Without a majority it answers nobody. */
  async killMajority(): Promise<void> {
    for (const member of this.#processes.slice(0, 2)) {
      member.signal("SIGKILL");
      await member.exited;
    }
  }

  async revive(): Promise<void> {
    for (const member of [0, 1]) this.#processes[member] = this.#start(member);
    await this.#untilHealthy(["--user", `root:${password}`]);
  }

  /** What stands in the pair's register. */
  register(): unknown {
    return JSON.parse(this.#control(["get", "--print-value-only", "/tandem/voice"], ["--user", `root:${password}`]));
  }

  #file(name: string): string {
    return path.join(this.#directory, name);
  }

  #start(member: number): LabProcess {
    const url = (port: number): string => `https://${address}:${port}`;
    const trust = (prefix: string): string[] => [
      `--${prefix}cert-file=${this.#file("server.crt")}`,
      `--${prefix}key-file=${this.#file("server.key")}`,
      `--${prefix}trusted-ca-file=${this.#file("ca.crt")}`,
      `--${prefix}client-cert-auth`,
    ];
    return this.lab.spawn("host", [
      "etcd",
      ...["--name", `m${member}`, "--data-dir", this.#file(`m${member}`)],
      ...["--listen-client-urls", url(clientPort(member)), "--advertise-client-urls", url(clientPort(member))],
      ...["--listen-peer-urls", url(peerPort(member)), "--initial-advertise-peer-urls", url(peerPort(member))],
      ...["--initial-cluster", members.map((each) => `m${each}=${url(peerPort(each))}`).join(",")],
      ...trust(""),
      ...trust("peer-"),
      ...["--logger=zap", "--log-level=error"],
    ]);
  }

  #control(words: string[], options: string[] = []): string {
    return this.lab.run("host", [
      ...["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", this.endpoints.join(",")],
      ...["--cacert", this.#file("ca.crt"), "--cert", this.#file("client.crt"), "--key", this.#file("client.key")],
      ...options,
      ...words,
    ]);
  }

  async #untilHealthy(options: string[] = []): Promise<void> {
    const deadline = performance.now() + 20_000;
    for (;;)
      try {
        this.#control(["endpoint", "health"], options);
        return;
      } catch (error) {
        if (performance.now() > deadline) throw error;
        await delay(100);
      }
  }

  /** No common names: etcd's gateway refuses client certificates that have one, and is a client with the server's. */
  #makeCertificates(): void {
    const openssl = (...words: string[]): void => {
      execFileSync("openssl", words, { cwd: this.#directory, stdio: ["ignore", "ignore", "pipe"] });
    };
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl("req", "-x509", ...key, "-days", "2", "-subj", "/CN=lab", "-keyout", "ca.key", "-out", "ca.crt");
    for (const name of ["server", "client"]) {
      openssl("req", ...key, "-subj", "/O=lab", "-keyout", `${name}.key`, "-out", `${name}.csr`);
      writeFileSync(
        this.#file("extensions"),
        `subjectAltName=IP:${address}\nextendedKeyUsage=clientAuth${name === "server" ? ",serverAuth" : ""}\n`,
      );
      openssl(
        ...["x509", "-req", "-days", "2", "-in", `${name}.csr`, "-out", `${name}.crt`],
        ...["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions"],
      );
      chmodSync(this.#file(`${name}.key`), 0o600);
    }
  }
}
