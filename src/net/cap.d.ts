// The parts of the npm package `cap` that are used here; it ships no types.
declare module "cap" {
  class Cap {
    open(device: string, filter: string, bufferSize: number, buffer: Buffer): string;
    close(): void;
    send(buffer: Buffer, length: number): void;
    on(event: "packet", listener: (length: number, truncated: boolean) => void): this;
  }
  const capModule: { Cap: typeof Cap };
  export default capModule;
}
