// What local/k6 runs before a crowd and after its verdict. A script of its own, because the verdict reads the round as the crowd left it.
export { BATCH as options, retire as setup } from './stock.js';

export default function nothing() {}
