// The options of a socket that the wire does not show: read from the active's socket, carried over the control channel,
// set on the restored one. Names follow tcp(7), ip(7) and socket(7).
import { z } from "zod";

const small = z.int().min(0).max(0x7fffffff);
const word = z.int().min(0).max(0xffffffff);

export const socketOptions = z.strictObject({
  /** IP_TTL, IPV6_UNICAST_HOPS; null: the route's. */
  ttl: z.int().min(1).max(255).nullable(),
  /** IP_MINTTL, IPV6_MINHOPCOUNT (GTSM, RFC 5082); 0: any. */
  minTtl: z.int().min(0).max(255),
  /** IP_TOS, IPV6_TCLASS. */
  tos: z.int().min(0).max(255),
  noDelay: z.boolean(),
  keepAlive: z.boolean(),
  /** Seconds; null: the system's. */
  keepIdle: small.nullable(),
  keepInterval: small.nullable(),
  keepCount: z.int().min(1).max(255).nullable(),
  /** TCP_USER_TIMEOUT, ms; 0: the system's. */
  userTimeout: small,
  /** TCP_CONGESTION. */
  congestion: z.string().max(15),
  /** TCP_MAXSEG as the application set it; null: it did not. */
  maxSegment: z.int().min(1).max(65_535).nullable(),
  /** SO_BINDTODEVICE by name, so that it holds on the other router, too; null: none. */
  device: z.string().min(1).max(15).nullable(),
  /** SO_SNDBUF, SO_RCVBUF where the application had set them, bytes as it gave them; null: autotuned. */
  sendBuffer: small.nullable(),
  receiveBuffer: small.nullable(),
  /** SO_PRIORITY, SO_MARK. */
  priority: word,
  mark: word,
  /** SO_LINGER, seconds; null: off. */
  linger: small.nullable(),
});

export type SocketOptions = z.infer<typeof socketOptions>;
