//! probe
fn main() {
    for p in std::env::args().skip(1) {
        let t = std::time::Instant::now();
        let o = cornjacket_compiler::load(std::path::Path::new(&p), &|_| None, &cornjacket_operators::REGISTRY);
        println!("{p} {:?} {}", t.elapsed(), cornjacket_compiler::render(&o.diagnostics, false).chars().take(300).collect::<String>());
    }
}
