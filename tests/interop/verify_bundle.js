// Verify a sigstore bundle with @sigstore/verify: JSON on stdin, "accepted" or "refused: WHY".
const crypto = require("crypto");
let verify, bundles;
try {
  verify = require("@sigstore/verify");
  bundles = require("@sigstore/bundle");
} catch (error) {
  console.log(`absent: ${error.message.split("\n")[0]}`);
  process.exit(0);
}
const claim = JSON.parse(require("fs").readFileSync(0, "utf8"));
try {
  const key = crypto.createPublicKey(claim.pem);
  const finder = (hint) => {
    if (hint !== claim.hint) throw new Error(`no key ${hint}`);
    return { publicKey: key, validFor: () => true };
  };
  const root = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
  const limits = { ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 0, tsaThreshold: 0 };
  const verifier = new verify.Verifier({ ...root, publicKey: finder }, limits);
  verifier.verify(verify.toSignedEntity(bundles.bundleFromJSON(JSON.parse(claim.bundle))));
  console.log("accepted");
} catch (error) {
  console.log(`refused: ${error.code || error.name}: ${error.message}`);
}
