// The agent's HTTP server: read-only, bounded, and only at the configured address.

import http from "node:http";
import type { AddressInfo } from "node:net";

export interface Answer {
  status: number;
  contentType: string;
  body: string;
}

/** Answers of each path; any other path is not found. */
export type Routes = Record<string, () => Promise<Answer>>;

export type OnFailure = (path: string, error: unknown) => void;

/** Nothing but our own files; no inline script or style, no frame around us, no address told to anybody. */
const headers = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
} as const;

const limits = { maxHeaderSize: 8 << 10, headersTimeout: 5_000, requestTimeout: 5_000, keepAliveTimeout: 15_000 };
const maxConnections = 64;

export class HttpServer {
  private constructor(private readonly server: http.Server) {}

  /** Rejects with the error of bind or listen. Port 0: the system chooses one. A route that rejects is a failure, and
   * answered with 500. */
  static async listen(
    { address, port }: { address: string; port: number },
    routes: Routes,
    onFailure: OnFailure,
  ): Promise<HttpServer> {
    const server = http.createServer({ ...limits, connectionsCheckingInterval: 1000 }, (request, response) => {
      void answer(request, response, routes, onFailure);
    });
    server.maxConnections = maxConnections;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, address, resolve);
    });
    server.on("error", () => {}); // of accept: that connection is lost, others are not
    return new HttpServer(server);
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }
}

async function answer(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  routes: Routes,
  onFailure: OnFailure,
): Promise<void> {
  const { status, contentType, body, ...extra } = await answerTo(request, routes, onFailure);
  const bytes = Buffer.from(body);
  response.writeHead(status, { ...headers, ...extra, "content-type": contentType, "content-length": bytes.length });
  // A body that comes with the request is not waited for.
  if (request.headers["content-length"] ?? request.headers["transfer-encoding"]) response.shouldKeepAlive = false;
  response.end(request.method === "HEAD" ? undefined : bytes);
}

async function answerTo(
  request: http.IncomingMessage,
  routes: Routes,
  onFailure: OnFailure,
): Promise<Answer & { allow?: string }> {
  const text = (status: number, body: string): Answer => ({ status, contentType: "text/plain; charset=utf-8", body });
  if (request.method !== "GET" && request.method !== "HEAD")
    return { ...text(405, "This server only answers GET and HEAD.\n"), allow: "GET, HEAD" };
  const path = (request.url ?? "").split("?", 1)[0] ?? "";
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (route === undefined) return text(404, `There are ${Object.keys(routes).join(", ")}.\n`);
  try {
    return await route();
  } catch (error) {
    onFailure(path, error);
    return text(500, "The agent could not be looked at; its log says more.\n");
  }
}
