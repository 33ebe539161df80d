"""Style and script of the cohort page. Nothing is loaded from elsewhere."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--text:#1c2126;--soft:#5b6670;--line:#d9dee3;--card:#f5f7f9;--mark:#b3261e;
--dots:#3d7cb8;--band:#dff0e0;--box:#aebfcd;--markbg:#fbe6e4}
@media (prefers-color-scheme:dark){:root{--bg:#14181c;--text:#e6eaee;--soft:#9aa6b1;--line:#333c44;--card:#1d2329;
--mark:#ff8a80;--dots:#7db6ea;--band:#1f3a26;--box:#4c5c69;--markbg:#47201d}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:90rem;padding:1rem;background:var(--bg);color:var(--text);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2rem 0 .6rem}
p,ul{margin:.3rem 0}.soft{color:var(--soft)}a{color:inherit}
.numbers{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0}
.numbers a{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.5rem .9rem;min-width:7rem;
text-decoration:none}
.numbers b{display:block;font-size:1.4rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:.7rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem;display:flex;gap:.7rem;
align-items:flex-start}
.card:target,tr:target{outline:2px solid var(--mark)}
.card ul{padding-left:1.1rem}.card h3{margin:0;font-size:1rem}.card>div{min-width:0}
img{display:block;max-width:100%;height:auto;border-radius:.25rem;background:#000}.card img{flex:none;width:7.5rem}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.6rem}
.gallery figure{margin:0}figcaption{font-size:.8rem}
.distributions{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,36rem),1fr));gap:.7rem}
.structure{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem}
.structure h3{margin:0 0 .3rem;font-size:1rem}
.structure .charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,11rem),1fr));gap:.6rem}
.strip{width:100%;display:block}.strip .dots{stroke:var(--dots);stroke-width:4;stroke-linecap:round;opacity:.55}
.strip .axis{stroke:var(--line)}.strip .median{stroke:var(--text);stroke-width:1.5}.strip .box{fill:var(--box)}
.strip .band{fill:var(--band)}.strip circle{fill:var(--mark);stroke:var(--card)}
.strip.few .dots{stroke-width:7;opacity:.9}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem}
.long{max-height:80vh;overflow-y:auto}.long thead th{position:sticky;top:0;z-index:1}
.long thead th:first-child{z-index:2}
th[aria-sort=ascending]::after{content:" \\25b4"}th[aria-sort=descending]::after{content:" \\25be"}
table{border-collapse:collapse;width:100%;font-size:.85rem}
th,td{padding:.25rem .5rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--bg);max-width:16rem;
white-space:normal;min-width:8rem}
.words th,.words td{text-align:left;white-space:normal}
thead th{background:var(--card);cursor:pointer}thead th:first-child{background:var(--card)}
td.mark{background:var(--markbg);color:var(--mark);font-weight:600}
.swatch{display:inline-block;width:.8em;height:.8em;border-radius:.2em;border:1px solid var(--line);
margin-right:.35em}
.tools{display:flex;flex-wrap:wrap;gap:1rem;margin:.5rem 0}
input[type=search]{font:inherit;padding:.25rem .5rem;border:1px solid var(--line);border-radius:.3rem;
background:var(--bg);color:inherit;min-width:14rem}
@media print{.tools{display:none}.long{max-height:none}body{max-width:none}}
"""

SCRIPT = """
(function(){
"use strict";
var table=document.getElementById("scans"),search=document.getElementById("search");
var only=document.getElementById("only");
if(!table)return;
var body=table.tBodies[0],rows=Array.prototype.slice.call(body.rows);
function show(){
  var words=search.value.toLowerCase();
  rows.forEach(function(row){
    row.hidden=row.cells[0].textContent.toLowerCase().indexOf(words)<0||(only.checked&&!row.hasAttribute("data-look"));
  });
}
search.addEventListener("input",show);only.addEventListener("change",show);
function key(row,column){
  var text=row.cells[column].textContent.trim(),number=parseFloat(text);
  return text===""?-Infinity:isNaN(number)?text.toLowerCase():number;
}
Array.prototype.forEach.call(table.tHead.rows[0].cells,function(cell,column){
  cell.tabIndex=0;
  cell.addEventListener("keydown",function(event){if(event.key==="Enter")cell.click();});
  cell.addEventListener("click",function(){
    var down=cell.getAttribute("aria-sort")==="ascending"?-1:1;
    Array.prototype.forEach.call(table.tHead.rows[0].cells,function(other){other.removeAttribute("aria-sort");});
    cell.setAttribute("aria-sort",down===1?"ascending":"descending");
    rows.sort(function(a,b){
      var x=key(a,column),y=key(b,column);
      if(typeof x!==typeof y)return (typeof x==="number"?-1:1)*down;
      return (x<y?-1:x>y?1:0)*down;
    });
    rows.forEach(function(row){body.appendChild(row);});
  });
});
})();
"""
