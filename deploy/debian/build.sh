#!/bin/sh
# Builds build/tandem_VERSION_ARCH.deb from a built tree: compiled TypeScript, BPF objects, addon, the npm packages it
# runs with, and the Node.js it was built with, since Debian 12 has none that is new enough.
set -eu
cd "$(dirname "$0")/../.."

version=$(node -p 'require("./package.json").version')
architecture=$(dpkg --print-architecture)
root=build/deb
package="build/tandem_${version}_${architecture}.deb"
library="$root/usr/lib/tandem"

rm -rf "$root"
mkdir -p "$library/addon/build/Release" "$library/build" "$root/usr/bin" "$root/usr/share/tandem" \
	"$root/usr/share/doc/tandem" "$root/usr/share/man/man1" "$root/lib/systemd/system" "$root/etc/tandem" \
	"$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
	"$root/usr/share/fish/vendor_completions.d" "$root/DEBIAN"

# What runs. Tests and their compiled form stay out.
mkdir -p "$library/build/js" "$library/build/bpf"
cp -r build/js/src build/js/addon "$library/build/js/"
cp build/bpf/mirror.bpf.o build/bpf/uplink.bpf.o build/bpf/witness.bpf.o build/bpf/snapshot.bpf.o \
	build/bpf/impair.bpf.o "$library/build/bpf/"
cp addon/build/Release/tandem.node "$library/addon/build/Release/"
cp package.json package-lock.json "$library/"
# Where `tandem drill` looks for its scenarios: as in the repository.
mkdir -p "$library/deploy"
cp -r deploy/drills "$library/deploy/"
# The packages it runs with, as they were built here: a second compilation could differ from what was tested.
npm ls --omit=dev --all --parseable 2>/dev/null | sed -n "s#^$PWD/node_modules/##p" | sort -u | while read -r each; do
	case "$each" in */node_modules/*) continue ;; esac # inside one that is copied
	mkdir -p "$library/node_modules/$(dirname "$each")"
	cp -r "node_modules/$each" "$library/node_modules/$each"
done
# What only compilers read; licences stay.
rm -rf "$library/node_modules/nan" "$library/node_modules/node-addon-api"
find "$library/node_modules" \( -name '*.o' -o -name '*.d' -o -name obj.target -o -name .deps -o -name '*.map' \
	-o -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name test -o -name tests \) -prune -exec rm -rf {} +
find "$library/build/js" -name '*.map' -delete
cp "$(node -p 'process.execPath')" "$library/node"
strip --strip-unneeded "$library/node" "$library/addon/build/Release/tandem.node"

cat >"$root/usr/bin/tandem" <<'EOF'
#!/bin/sh
exec /usr/lib/tandem/node /usr/lib/tandem/build/js/src/cli/tandem.js "$@"
EOF
chmod 755 "$root/usr/bin/tandem"

cp deploy/systemd/tandem.service "$root/lib/systemd/system/"
cp -r deploy/prometheus deploy/grafana deploy/keepalived deploy/tandem.schema.json examples "$root/usr/share/tandem/"
# As in the repository, so that what they link to is there.
cp -r README.md LICENSE* docs "$root/usr/share/doc/tandem/"
ln -s ../../tandem/examples "$root/usr/share/doc/tandem/examples"
ln -s ../../tandem "$root/usr/share/doc/tandem/deploy"
gzip -9n <deploy/man/tandem.1 >"$root/usr/share/man/man1/tandem.1.gz"
cp deploy/completion/tandem.bash "$root/usr/share/bash-completion/completions/tandem"
cp deploy/completion/_tandem "$root/usr/share/zsh/vendor-completions/_tandem"
cp deploy/completion/tandem.fish "$root/usr/share/fish/vendor_completions.d/tandem.fish"
cp examples/tandem.yaml "$root/etc/tandem/tandem.yaml.example"

sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" \
	-e "s/@SIZE@/$(du -sk "$root" | cut -f1)/" deploy/debian/control >"$root/DEBIAN/control"
echo /etc/tandem/tandem.yaml.example >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
	install -m 755 "deploy/debian/$script" "$root/DEBIAN/$script"
done
chmod -R u=rwX,go=rX "$root"
chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm" "$root/DEBIAN/postrm"
dpkg-deb --root-owner-group -Zxz -z1 --build "$root" "$package" >/dev/null
rm -rf "$root"
echo "$package"
