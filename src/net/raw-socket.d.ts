// The parts of the npm package `raw-socket` that are used here; it ships no types.
declare module "raw-socket" {
  interface RawSocket {
    send(
      buffer: Buffer,
      offset: number,
      length: number,
      address: string,
      done: (error: Error | null, bytes: number) => void,
    ): this;
    setOption(level: number, option: number, value: number): void;
    pauseRecv(): this;
    close(): this;
    on(event: "message", listener: (buffer: Buffer, source: string) => void): this;
    on(event: "error", listener: (error: Error) => void): this;
    on(event: "close", listener: () => void): this;
  }
  const rawSocketModule: {
    createSocket(options: { addressFamily: number; protocol: number }): RawSocket;
    AddressFamily: { IPv4: number; IPv6: number };
  };
  export default rawSocketModule;
}
